"""GIN samples of volumes of the scene by the real worker, without Qt: what a script in Slicer does."""

import hashlib
import json
import os
import sys

import numpy as np
import psutil
import pytest
import slicer
from FedSegSlicerLib.CaseHandover import CaseHandover
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.FederationTypes import CaseOffer
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.SampleVolumes import PARAMETERS, factsOf
from FedSegSlicerLib.SeeLogic import SeeLogic
from FedSegSlicerLib.SeeTypes import GinSettings, Look, SeeState
from FedSegSlicerLib.SegmentExport import SegmentExport
from FedSegSlicerLib.SegmentQueue import entriesOfScene
from FedSegSlicerLib.VolumeExchange import VolumeExchange
from FedSegSlicerLib.WorkerSession import WorkerSession
from scene_helpers import save_and_load
from see_helpers import make_site, small_outline, small_scan
from without_qt import EventLoop, SubprocessWorker

pytestmark = pytest.mark.slicer


class Desk:
    """A logic with its loop and worker, and everything it has told since the last ``clear``."""

    def __init__(self):
        self.loop = EventLoop()
        self.workers = []
        locator = RuntimeLocator(lambda: sys.executable, lambda: dict(os.environ))
        self.session = WorkerSession(locator, self._make, self.loop.callLater)
        exchanges = [VolumeExchange(self.loop.callLater) for _ in range(2)]
        self.logic = SeeLogic(self.session, *exchanges, self.loop.callLater)
        self.clear()
        self.logic.changed.connect(lambda: self.changes.append(self.logic.scene and dict(self.logic.samples)))
        self.logic.finished.connect(lambda: self.finished.append(True))
        self.logic.failed.connect(lambda error: self.errors.append(error))
        self.logic.used.connect(lambda *told: self.used.append(told))
        self.logic.progressed.connect(lambda progress: self.progress.append(progress))

    def _make(self):
        self.workers.append(SubprocessWorker(self.loop))
        return self.workers[-1]

    def clear(self):
        self.changes, self.finished, self.errors, self.used, self.progress = [], [], [], [], []

    def wait(self, done, seconds=120):
        assert self.loop.runUntil(done, seconds), (self.errors, self.session.log())

    def show(self, look):
        self.logic.show(look)
        self.wait(lambda: self.finished or self.errors)
        assert not self.errors


def handed_over(desk, offer):
    """Hand a case over to a worker that is never asked."""
    exchange = VolumeExchange(desk.loop.callLater)
    handover = CaseHandover(exchange, SegmentExport(desk.session, desk.loop.callLater))
    handover.write(offer, pytest.fail, pytest.fail)


@pytest.fixture(scope="module")
def shared_desk():
    """One worker for most tests of this file: starting torch is what takes the time."""
    made = Desk()
    yield made
    made.logic.close()
    assert not made.session.isRunning()


@pytest.fixture
def desk(shared_desk):
    shared_desk.clear()
    yield shared_desk
    shared_desk.loop.runUntil(lambda: False, 0.05)
    assert shared_desk.logic.state is SeeState.IDLE
    shared_desk.logic.clear()
    shared_desk.clear()


def voxels(node):
    return slicer.util.arrayFromVolume(node).copy()


def test_first_slices_come_first_and_whole_volumes_after(desk):
    volume = small_scan("CT")
    desk.show(Look(volume, samples=3, seed=4))
    whole = [sorted(number for number, sample in samples.items() if sample.isWhole) for samples in desk.changes]
    assert [len(samples) for samples in desk.changes] == [1, 3, 3, 3, 3]
    assert whole == [[], [], [0], [0, 1], [0, 1, 2]]
    scene = desk.logic.scene
    assert (scene.modality, scene.confidence) == ("CT", pytest.approx(1, abs=0.5))
    assert scene.original.array.shape[0] == scene.slices
    nodes = desk.logic.volumes.nodes()
    assert [node.GetName() for node in nodes] == ["Original, as a network sees it", "Sample 1", "Sample 2", "Sample 3"]
    assert len({voxels(node).tobytes() for node in nodes}) == 4
    for node in nodes:
        assert voxels(node).shape == scene.original.array.shape
        assert not node.GetSaveWithScene()
        assert node.GetHideFromEditors()
    fractions = [progress.fraction for progress in desk.progress]
    assert fractions == sorted(fractions)


def test_samples_lie_where_their_image_lies(desk):
    """A point of the scan is the same point of every sample, also in an oblique one: what fits one fits all."""
    volume = small_scan("CT", turned=True)
    desk.show(Look(volume, GinSettings(0.0, 0.0), samples=1))
    bounds, expected = [0.0] * 6, [0.0] * 6
    volume.GetRASBounds(expected)
    scan = voxels(volume).astype(float)
    place = np.array(slicer.util.arrayFromVTKMatrix(volume_matrix(volume)))
    for node in desk.logic.volumes.nodes():
        node.GetRASBounds(bounds)
        np.testing.assert_allclose(bounds, expected, atol=8.0)  # within a voxel of the scan
        found = np.linalg.inv(np.array(slicer.util.arrayFromVTKMatrix(volume_matrix(node))))
        values = voxels(node)
        inside = []
        for k, j, i in ((4, 8, 9), (3, 6, 7), (5, 9, 12)):
            at = (found @ place @ [i, j, k, 1])[:3]
            inside.append((np.clip((scan[k, j, i] + 160) / 400, 0, 1), values[tuple(np.rint(at[::-1]).astype(int))]))
        np.testing.assert_allclose(*np.transpose(inside), atol=0.15)


def volume_matrix(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_seed_and_settings_decide_the_samples(desk):
    volume = small_scan("CT")
    shown = {}
    for name, look in {
        "first": Look(volume, samples=2, seed=1),
        "again": Look(volume, samples=2, seed=1),
        "seed": Look(volume, samples=2, seed=2),
        "layers": Look(volume, GinSettings(layers=2), samples=2, seed=1),
        "kernels": Look(volume, GinSettings(kernelSizes=(5,)), samples=2, seed=1),
        "batch": Look(volume, GinSettings(perBatch=True), samples=2, seed=1),
        "weak": Look(volume, GinSettings(alphaHigh=0.1), samples=2, seed=1),
    }.items():
        desk.clear()
        desk.show(look)
        shown[name] = [voxels(node) for node in desk.logic.volumes.nodes()[1:]]
    np.testing.assert_array_equal(shown["first"], shown["again"])
    assert len({samples[1].tobytes() for samples in shown.values()}) == 6
    assert max(sample.alpha for sample in desk.logic.samples.values()) <= 0.1
    assert all(sample.correlation > 0.9 for sample in desk.logic.samples.values())


def node_ids():
    scene = slicer.mrmlScene
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def test_fewer_samples_leave_no_volume_behind(desk):
    volume = small_scan("CT")
    before = node_ids()
    desk.show(Look(volume, samples=3))
    desk.clear()
    desk.show(Look(volume, samples=1))
    assert len(desk.logic.volumes.nodes()) == 2
    desk.logic.clear()
    assert node_ids() - before <= {"vtkMRMLSubjectHierarchyNode1"}  # made by asking for it


def test_a_reference_is_compared_with(desk):
    volume, reference = small_scan("CT"), small_scan("MR")
    desk.show(Look(volume, samples=2, reference=reference))
    scene, samples = desk.logic.scene, desk.logic.samples
    assert scene.referenceDistance > 0.05
    assert len(scene.referenceHistogram) == len(scene.histogram) == 64
    assert all(sample.referenceDistance > 0 for sample in samples.values())
    desk.clear()
    desk.show(Look(volume, samples=2, reference=volume))
    assert desk.logic.scene.referenceDistance == pytest.approx(0.0, abs=1e-6)


def test_a_kept_sample_survives_the_scene_and_is_made_again_to_the_bit(desk, tmp_path):
    volume = small_scan("CT", name="scan")
    desk.show(Look(volume, GinSettings(0.2, 0.9, 3, (1, 3, 5)), samples=2, seed=77))
    kept = desk.logic.keep(1)
    expected = voxels(kept)
    np.testing.assert_array_equal(expected, voxels(desk.logic.volumes.node(2)))
    assert kept.GetName() == "scan GIN seed 77 sample 2"
    assert kept.GetSaveWithScene()
    assert not kept.GetHideFromEditors()
    assert hashlib.sha256(expected.tobytes()).hexdigest() == factsOf(kept)["sha256"]
    desk.logic.clear()
    np.testing.assert_array_equal(voxels(kept), expected)  # it is a volume of its own
    save_and_load(tmp_path)
    kept = slicer.mrmlScene.GetFirstNodeByName("scan GIN seed 77 sample 2")
    facts = factsOf(kept)
    assert (facts["alpha"], facts["layers"], facts["kernel_sizes"], facts["seed"]) == ([0.2, 0.9], 3, [1, 3, 5], 77)
    desk.clear()
    made = []
    desk.logic.makeAgain(kept, lambda node, same: made.append((node, same)))
    desk.wait(lambda: made or desk.errors)
    ((node, same),) = made
    assert same
    np.testing.assert_array_equal(voxels(node), expected)
    assert [entry.name for entry in entriesOfScene()] == ["scan"]  # neither is queued as a patient's image
    for sample in (kept, node):
        with pytest.raises(UserError, match=r"case\.sample"):
            handed_over(desk, CaseOffer(sample, small_outline(sample), "4711"))
    # From another image comes another sample, and that is told.
    slicer.util.arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("scan"))[4] += 100
    slicer.util.arrayFromVolumeModified(slicer.mrmlScene.GetFirstNodeByName("scan"))
    desk.logic.makeAgain(kept, lambda node, same: made.append((node, same)))
    desk.wait(lambda: len(made) == 2 or desk.errors)
    assert not made[1][1]


def test_only_whole_samples_can_be_kept(desk):
    volume = small_scan("CT")
    with pytest.raises(UserError) as refused:
        desk.logic.keep(0)
    assert refused.value.code == "sample.not-whole"
    desk.logic.show(Look(volume, samples=2))
    desk.wait(lambda: desk.changes or desk.errors)
    with pytest.raises(UserError) as refused:
        desk.logic.keep(0)
    assert refused.value.code == "sample.not-whole"
    desk.logic.cancel()
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].isCancelled
    assert desk.logic.samples  # what is there stays
    for wrong in (volume, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")):
        with pytest.raises(UserError) as refused:
            desk.logic.makeAgain(wrong, print)
        assert refused.value.code == "sample.not-kept"


def test_damaged_notes_are_told(desk):
    volume = small_scan("CT")
    desk.show(Look(volume, samples=1))
    kept = desk.logic.keep(0)
    kept.SetAttribute(PARAMETERS, kept.GetAttribute(PARAMETERS)[:100])
    desk.clear()
    desk.logic.makeAgain(kept, print)
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].code == "gin.unreadable"


def test_the_newest_wish_wins_and_the_worker_stays(desk):
    volume = small_scan("CT")
    workers = len(desk.workers)
    for seed in range(5):
        desk.logic.show(Look(volume, samples=2, seed=seed))
    desk.wait(lambda: desk.finished or desk.errors)
    assert not desk.errors
    assert desk.logic.scene.look.seed == 4
    assert len(desk.finished) == 1
    assert len(desk.workers) <= max(1, workers)


def test_a_volume_removed_meanwhile_and_unfit_volumes_are_told(desk):
    volume = small_scan("CT")
    desk.logic.show(Look(volume, samples=2))
    desk.wait(lambda: desk.changes or desk.errors)
    slicer.mrmlScene.RemoveNode(volume)
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].code == "volume.gone"
    with pytest.raises(UserError) as refused:
        desk.logic.show(Look(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")))
    assert refused.value.code == "volume.labels"
    assert desk.logic.state is SeeState.IDLE


def test_a_killed_worker_is_told_and_the_next_wish_starts_another(desk):
    volume = small_scan("CT")
    desk.logic.show(Look(volume, samples=4))
    desk.wait(lambda: desk.changes or desk.errors)
    psutil.Process(desk.workers[-1]._process.pid).kill()
    desk.wait(lambda: desk.errors, 10)
    assert desk.errors[0].code == "worker.ended"
    desk.clear()
    desk.show(Look(volume, samples=1))


def test_color_and_single_slice_images(desk):
    """An ultrasound picture has one slice; an endoscopic one has colors, and its samples have them too."""
    flat = small_scan("US")
    desk.show(Look(flat, samples=2, modality="US"))
    assert desk.logic.scene.slices == 1
    assert len(desk.changes) == 2  # the first slices are the whole
    desk.clear()
    generator = np.random.default_rng(0)
    color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "color")
    slicer.util.updateVolumeFromArray(color, generator.integers(0, 255, (1, 40, 50, 3)).astype(np.uint8))
    desk.show(Look(color, samples=1, modality="ES"))
    kept = desk.logic.keep(0)
    assert voxels(kept).shape[-1] == 3
    assert kept.IsA("vtkMRMLVectorVolumeNode")


def test_settings_reach_the_site_and_its_journal(desk, tmp_path):
    site = make_site(tmp_path / "site")
    settings = GinSettings(0.1, 0.6, 3, (1, 3), perBatch=True)
    desk.logic.useForTraining(str(site), settings)
    desk.wait(lambda: desk.used or desk.errors)
    assert desk.used == [("north", settings)]
    kept = json.loads((site / "augmentation.json").read_text())
    assert kept == {"alpha": [0.1, 0.6], "layers": 3, "kernel_sizes": [1, 3], "per_batch": True}
    (entry,) = [json.loads(line)["entry"] for line in (site / "journal" / "journal-000001.jsonl").open()][1:]
    assert (entry["kind"], entry["own"], entry["alpha_high"]) == ("gin-chosen", True, 0.6)
    desk.logic.useForTraining(str(site), None)
    desk.wait(lambda: len(desk.used) == 2 or desk.errors)
    assert desk.used[1] == ("north", None)
    assert not (site / "augmentation.json").exists()
    desk.logic.useForTraining(str(tmp_path), GinSettings())
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].code == "site.folder"


def test_closing_leaves_no_process_and_no_file():
    made = Desk()
    made.show(Look(small_scan("CT"), samples=1))
    folder, process = made.logic.folder(), made.workers[0]._process
    assert folder.is_dir()
    made.logic.volumes.clear()
    made.logic.close()
    assert not folder.exists()
    assert process.poll() is not None
