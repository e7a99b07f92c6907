"""Segmenting a volume of the scene by the real worker, without Qt: what a script in Slicer does."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import slicer
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.SegmentLogic import Inspection, SegmentLogic, State
from FedSegSlicerLib.VolumeExchange import VolumeExchange
from FedSegSlicerLib.WorkerSession import WorkerSession
from scene_helpers import load_volume
from scipy.spatial.transform import Rotation
from without_qt import EventLoop, SubprocessWorker

pytestmark = pytest.mark.slicer


class Desk:
    """A logic with its loop and worker, and everything it has told since the last ``clear``."""

    def __init__(self, python: str = sys.executable):
        self.loop = EventLoop()
        self.workers = []
        locator = RuntimeLocator(lambda: python, lambda: dict(os.environ))
        self.session = WorkerSession(locator, self._make, self.loop.callLater)
        self.exchange = VolumeExchange(self.loop.callLater)
        self.logic = SegmentLogic(self.session, self.exchange, self.loop.callLater)
        self.progress, self.outcomes, self.errors, self.inspections, self.lists = [], [], [], [], []
        self.logic.progressed.connect(lambda progress: self.progress.append(progress))
        self.logic.finished.connect(lambda outcome: self.outcomes.append(outcome))
        self.logic.failed.connect(lambda error: self.errors.append(error))
        self.logic.inspected.connect(lambda found: self.inspections.append(found))
        self.logic.releasesListed.connect(lambda releases, error: self.lists.append((releases, error)))

    def _make(self):
        self.workers.append(SubprocessWorker(self.loop))
        return self.workers[-1]

    def clear(self):
        self.progress, self.outcomes, self.errors, self.inspections, self.lists = [], [], [], [], []

    def wait(self, done, seconds=60):
        assert self.loop.runUntil(done, seconds), (self.errors, self.session.log())

    def segment(self, volume, release, folder, modality="CT"):
        self.logic.segment(volume, modality, release, str(folder), "cpu")

    def rest(self):
        self.loop.runUntil(lambda: False, 0.1)


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
    shared_desk.rest()
    assert shared_desk.logic.state is State.IDLE


def command_line_result(image, releases, out, release):
    """Return the voxels (k, j, i) that ``fedseg segment`` writes for the same file."""
    command = [sys.executable, "-m", "FedSegCore.cli.main", "segment", str(image), "--releases", str(releases)]
    subprocess.run(
        [*command, "--release", release, "--modality", "CT", "--device", "cpu", "--out", str(out)], check=True
    )
    return sitk.GetArrayFromImage(sitk.ReadImage(str(out)))


def voxels_of(node, volume):
    """Return the node's segments as one label map (k, j, i) on the volume's grid, numbered in their order from 1."""
    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for value, segment_id in enumerate(node.GetSegmentation().GetSegmentIDs(), start=1):
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume) > 0] = value
    return labels


def test_the_result_is_the_command_lines_voxel_for_voxel(desk, patients, releases, tmp_path):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v2", releases)
    desk.wait(lambda: desk.outcomes)
    outcome = desk.outcomes[0]
    expected = command_line_result(patients["CT"], releases, tmp_path / "cli.nii.gz", "tiny-CT-v2")
    assert len(np.unique(expected)) > 2  # an untrained network, but not a trivial answer
    np.testing.assert_array_equal(voxels_of(outcome.node, volume), expected)
    voxel_ml = np.prod(volume.GetSpacing()) / 1000
    for value, row in enumerate(outcome.rows, start=1):
        assert row.volumeMl == pytest.approx((expected == value).sum() * voxel_ml, rel=1e-3)
    assert (outcome.release, outcome.modality, outcome.device) == ("tiny-CT-v2", "CT", "cpu")
    fractions = [progress.fraction for progress in desk.progress]
    assert fractions == sorted(fractions)
    assert desk.progress[-1].fraction == 1.0
    assert desk.logic.state is State.IDLE
    assert not desk.errors


def awkward_images(folder, patients):
    """Yield the phantom's voxels as files of several kinds and places."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(patients["CT"])))
    turn = Rotation.from_euler("xyz", (20, -35, 10), degrees=True).as_matrix()
    for name, array, direction, suffix in (
        ("oblique", voxels, turn, ".nii.gz"),
        ("flipped", voxels, np.diag([1.0, -1.0, -1.0]), ".nrrd"),
        ("left-handed", voxels, np.diag([1.0, 1.0, -1.0]), ".nii.gz"),
        ("float", voxels.astype(np.float32) + 0.25, np.eye(3), ".mha"),
        ("int32", voxels.astype(np.int32), np.eye(3), ".nrrd"),
        ("one-slice", voxels[10:11], np.eye(3), ".nrrd"),
    ):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((7.6, 7.7, 8.1))
        image.SetOrigin((-123.4, 56.7, 890.1))
        image.SetDirection(direction.ravel().tolist())
        sitk.WriteImage(image, str(folder / f"{name}{suffix}"))
        yield folder / f"{name}{suffix}"


def test_awkward_images_give_the_voxels_their_files_give(desk, patients, releases, tmp_path):
    """What the worker makes of the file is what it makes of the volume that Slicer loaded from it."""
    for number, path in enumerate(awkward_images(tmp_path, patients), start=1):
        direct = tmp_path / f"direct-{number}.nii.gz"
        replies = []
        order = {"image": str(path), "releases": str(releases), "release": "tiny-CT-v2", "modality": "CT",
                 "device": "cpu", "output": str(direct)}  # fmt: skip
        desk.session.request("segment", order, replies.append, desk.errors.append)
        desk.wait(lambda replies=replies: replies or desk.errors)
        volume = load_volume(path, path.stem)
        desk.segment(volume, "tiny-CT-v2", releases)
        desk.wait(lambda number=number: len(desk.outcomes) == number or desk.errors)
        assert not desk.errors, path.name
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(direct)))
        if path.name.startswith("left-handed"):
            expected = expected[::-1]  # Slicer turns the slices' order so that the axes are right-handed
        found = voxels_of(desk.outcomes[-1].node, volume)
        np.testing.assert_array_equal(found, expected, err_msg=path.name)
        assert len(np.unique(expected)) > 1, path.name


def test_a_second_run_replaces_the_first_with_the_same_worker(desk, patients, releases):
    volume = load_volume(patients["CT"])
    for number, release in enumerate(("tiny-CT-v1", "tiny-CT-v2", "tiny-CT-v2"), start=1):
        desk.segment(volume, release, releases)
        desk.wait(lambda number=number: len(desk.outcomes) == number)
    assert len(desk.outcomes) == 3
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    node = findResult(volume)
    assert node is desk.outcomes[0].node
    assert node.GetAttribute("FedSegSlicer.Release") == "tiny-CT-v2"
    assert node.GetSegmentation().GetNumberOfSegments() == 5
    assert len(desk.workers) == 1  # the worker stays, with the model in memory
    assert list(desk.exchange.folder().glob("result-*")) == []


def test_modality_is_detected_from_the_voxels_and_taken_from_the_series(desk, patients):
    volume = load_volume(patients["CT"])
    desk.logic.inspect(volume)
    desk.wait(lambda: desk.inspections)
    assert isinstance(desk.inspections[0], Inspection)
    assert desk.inspections[0].modality == "CT"
    assert 0.7 <= desk.inspections[0].confidence <= 1.0
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    desk.logic.inspect(volume)
    desk.wait(lambda: len(desk.inspections) == 2)
    assert (desk.inspections[1].modality, desk.inspections[1].confidence) == ("MR", 1.0)


def test_releases_are_listed_newest_first_and_a_tampered_one_is_named(desk, releases, tmp_path):
    folder = shutil.copytree(releases, tmp_path / "releases")
    weights = folder / "tiny-CT-v2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    desk.logic.listReleases(str(releases))
    desk.wait(lambda: desk.lists)
    good, error = desk.lists[0]
    assert [release.id for release in good if "CT" in release.modalities] == ["tiny-CT-v2", "tiny-CT-v1"]
    assert good[0].labels
    assert error is None
    desk.logic.listReleases(str(folder))
    desk.wait(lambda: len(desk.lists) == 2)
    rest, error = desk.lists[1]
    assert {release.id for release in rest} == {"tiny-CT-v1", "tiny-MR-v1"}
    assert error.code == "release.weights-changed"


def release_with_usual(releases, folder):
    """Publish the coarse CT release with what is usual in five generated patients' CTs."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from FedSegCore.learning.case import TrainingCase
    from FedSegCore.learning.cohort import Cohort
    from FedSegCore.learning.cohort_usual import measure_cohort, usual_of
    from FedSegCore.models.release import open_release, publish_release
    from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient

    release = open_release(releases / "tiny-CT-v2")
    phantoms = [make_patient("CT", seed, size="test") for seed in range(5)]
    cases = [TrainingCase(str(n), str(n), one.image, one.labels, one.annotated) for n, one in enumerate(phantoms)]
    told = usual_of(measure_cohort(Cohort.prepare(cases, [], release.card.modalities["CT"], TORSO_CONTRACT).training))
    names = {label.value: label.name for label in TORSO_CONTRACT.labels}
    usual = {"look": told.look, "volumes": {names[value]: one for value, one in told.volumes.items()}}
    fields = {**dict(release.card), "usual": {"CT": usual}}
    publish_release(folder, fields, release.weights(), Ed25519PrivateKey.generate())
    return folder


def test_an_image_unlike_those_of_training_is_told_and_another_one_is_not(desk, patients, releases, tmp_path):
    folder = release_with_usual(releases, tmp_path / "releases")
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT", folder)
    desk.wait(lambda: desk.outcomes)
    assert desk.outcomes[0].checks == ()
    voxels = slicer.util.arrayFromVolume(volume)
    voxels[:] = np.random.default_rng(0).normal(40.0, 300.0, voxels.shape)
    slicer.util.arrayFromVolumeModified(volume)
    desk.segment(volume, "tiny-CT", folder)
    desk.wait(lambda: len(desk.outcomes) == 2)
    (reason,) = desk.outcomes[1].checks
    assert "unlike those the model was trained on" in reason
    # an untrained network in noise: whatever it paints of the liver, its volume is none of a liver's
    (liver,) = (row for row in desk.outcomes[1].rows if row.name == "liver")
    assert any("than usual" in reason or "not found" in reason for reason in liver.checks)


def test_cancelling_stops_within_two_seconds_and_changes_nothing(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v1", releases)
    desk.wait(lambda: any(p.fraction > 0 for p in desk.progress))
    start = time.monotonic()
    desk.logic.cancel()
    assert desk.logic.state is State.CANCELLING
    desk.wait(lambda: desk.errors, 5)
    assert time.monotonic() - start < 2.0
    assert desk.errors[0].isCancelled
    assert findResult(volume) is None
    assert desk.outcomes == []
    desk.segment(volume, "tiny-CT-v2", releases)
    desk.wait(lambda: desk.outcomes)


def test_a_listener_that_fails_at_the_start_leaves_nothing_running(desk, patients, releases):
    def fail(_progress):
        raise ZeroDivisionError

    volume = load_volume(patients["CT"])
    desk.logic.progressed.connect(fail)
    with pytest.raises(ZeroDivisionError):
        desk.segment(volume, "tiny-CT-v2", releases)
    desk.logic.progressed.disconnect(fail)
    assert desk.logic.state is State.IDLE
    desk.segment(volume, "tiny-CT-v2", releases)
    desk.wait(lambda: desk.outcomes)


def test_cancelling_before_the_volume_is_handed_over(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v2", releases)
    desk.logic.cancel()
    desk.wait(lambda: desk.errors, 5)
    desk.rest()
    assert [error.code for error in desk.errors] == ["cancelled"]
    assert desk.outcomes == []


def test_a_killed_worker_is_told_and_the_next_click_starts_another(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v1", releases)
    desk.wait(lambda: any(progress.fraction > 0 for progress in desk.progress))
    psutil.Process(desk.workers[-1]._process.pid).kill()
    desk.wait(lambda: desk.errors, 10)
    assert desk.errors[0].code == "worker.ended"
    assert desk.errors[0].remedy
    desk.segment(volume, "tiny-CT-v2", releases)
    desk.wait(lambda: desk.outcomes)


def test_another_runtime_waits_for_what_is_running(desk, patients, releases):
    """A worker of an older runtime ends what it is doing; the next request after that starts another one."""
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v1", releases)
    desk.wait(lambda: any(progress.fraction > 0 for progress in desk.progress))
    assert desk.session.isBusy()
    workers = len(desk.workers)
    desk.session.renew()
    desk.wait(lambda: desk.outcomes or desk.errors)
    assert not desk.errors
    assert not desk.session.isRunning()
    desk.segment(volume, "tiny-CT-v2", releases)  # at once, while the former one is still ending
    desk.wait(lambda: len(desk.outcomes) == 2 or desk.errors)
    assert not desk.errors
    assert len(desk.workers) == workers + 1
    desk.wait(lambda: not desk.workers[workers - 1].isRunning())


def test_a_volume_removed_meanwhile_is_told(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v1", releases)
    desk.wait(lambda: any(progress.fraction > 0 for progress in desk.progress))
    slicer.mrmlScene.RemoveNode(volume)
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].code == "volume.gone"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_errors_of_the_worker_arrive_with_code_and_remedy(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v2", releases, "MR")
    desk.wait(lambda: desk.errors)
    assert desk.errors[0].code == "release.wrong-modality"
    assert desk.errors[0].remedy


@pytest.mark.parametrize("content", [None, "not a program", "#!/bin/sh\nexit 1\n"])
def test_a_runtime_that_cannot_run_is_told(content, patients, releases, tmp_path):
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    made = Desk(str(python))
    volume = load_volume(patients["CT"])
    made.segment(volume, "tiny-CT-v2", releases)
    made.wait(lambda: made.errors, 10)
    assert made.errors[0].code == "runtime.unusable"
    made.logic.close()


def test_closing_leaves_no_process_and_no_file(patients, releases):
    made = Desk()
    volume = load_volume(patients["CT"])
    made.segment(volume, "tiny-CT-v2", releases)
    made.wait(made.session.isRunning, 30)
    folder, process = made.exchange.folder(), made.workers[0]._process
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    made.logic.close()
    assert not folder.exists()
    assert process.poll() is not None
    made.rest()
    assert made.errors == []
    assert made.outcomes == []
