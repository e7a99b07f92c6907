"""Several volumes and a 4-D sequence, one after the other, by the real worker."""

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.ResultPlace import resultOfFrame, resultSequence
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.SegmentLogic import State
from FedSegSlicerLib.SegmentQueue import SegmentQueue, Status, entriesOfScene
from scene_helpers import load_volume
from test_segment_logic import Desk, voxels_of

pytestmark = pytest.mark.slicer


@pytest.fixture(scope="module")
def shared():
    made = Desk()
    yield made, SegmentQueue(made.logic)
    made.logic.close()


@pytest.fixture
def desk(shared):
    shared[0].clear()
    return shared[0]


@pytest.fixture
def queue(shared, desk):
    yield shared[1]
    desk.rest()
    assert desk.logic.state is State.IDLE


def newest(found):
    if found.modality not in ("CT", "MR"):
        raise UserError("test.no-model", f"There is no model for {found.modality}.", "None.")
    return found.modality, {"CT": "tiny-CT-v2", "MR": "tiny-MR-v1"}[found.modality]


def slowest(_found):
    return "CT", "tiny-CT-v1"


def start(queue, releases, decide=newest):
    queue.start(entriesOfScene(), decide, str(releases), "cpu")
    assert queue.isRunning


def test_what_fails_does_not_stop_the_others(desk, queue, patients, releases):
    ct = load_volume(patients["CT"], "first")
    flat = slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.int16), name="flat")
    mr = load_volume(patients["MR"], "third")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), mr)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    steps = []
    queue.changed.connect(lambda: steps.append([entry.status for entry in queue.entries]))
    start(queue, releases)
    desk.wait(lambda: not queue.isRunning)
    assert [(entry.name, entry.status) for entry in queue.entries] == [
        ("first", Status.DONE), ("flat", Status.FAILED), ("third", Status.DONE)]  # fmt: skip
    assert queue.entries[1].error.code == "image.constant"
    assert queue.entries[1].words() == queue.entries[1].error.cause
    assert queue.entries[0].words().startswith("done")
    assert findResult(ct).GetAttribute("FedSegSlicer.Release") == "tiny-CT-v2"
    assert findResult(mr).GetAttribute("FedSegSlicer.Release") == "tiny-MR-v1"
    assert findResult(flat) is None
    assert all(statuses.count(Status.RUNNING) <= 1 for statuses in steps)


def test_cancelling_this_one_goes_on_with_the_next_and_cancelling_all_does_not(desk, queue, patients, releases):
    for name in ("first", "second", "third"):
        load_volume(patients["CT"], name)
    start(queue, releases, slowest)
    desk.wait(lambda: any(progress.fraction > 0 for progress in desk.progress))
    desk.logic.cancel()
    desk.wait(lambda: queue.entries[1].status is Status.RUNNING)
    assert queue.entries[0].status is Status.CANCELLED
    desk.wait(lambda: desk.logic.state is State.RUNNING)
    queue.cancelAll()
    desk.wait(lambda: not queue.isRunning, 10)
    assert [entry.status for entry in queue.entries] == [Status.CANCELLED] * 3
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_volume_that_was_removed_while_it_waited_stops_nothing(desk, queue, patients, releases):
    load_volume(patients["CT"], "first")
    second = load_volume(patients["CT"], "second")
    last = load_volume(patients["CT"], "third")
    start(queue, releases)
    slicer.mrmlScene.RemoveNode(second)
    desk.wait(lambda: not queue.isRunning)
    assert [entry.status for entry in queue.entries] == [Status.DONE, Status.FAILED, Status.DONE]
    assert queue.entries[1].error.code == "volume.gone"
    assert findResult(last) is not None


def test_nobody_else_segments_while_the_queue_looks_at_a_volume(desk, queue, patients, releases):
    """Its file stays, too, where another volume is looked at meanwhile."""
    first, second = (load_volume(patients["CT"], name) for name in ("first", "second"))
    desk.session.request("segment", {"image": str(patients["CT"]), "releases": str(releases), "release": "tiny-CT-v1",
                                     "modality": "CT", "device": "cpu"}, print, print)  # fmt: skip
    queue.start(entriesOfScene()[:1], newest, str(releases), "cpu")
    files = lambda: list(desk.exchange.folder().glob("volume-*.nrrd"))  # noqa: E731
    desk.wait(files)
    (kept,) = files()
    assert (desk.logic.state, desk.logic.isBusy) == (State.IDLE, True)
    with pytest.raises(UserError) as refused:
        desk.segment(second, "tiny-CT-v2", releases)
    assert refused.value.code == "segment.busy"
    with pytest.raises(UserError):
        SegmentQueue(desk.logic).start(entriesOfScene(), newest, str(releases), "cpu")
    desk.logic.inspect(second)
    desk.wait(lambda: len(files()) == 2)
    assert kept in files()
    assert queue.entries[0].status is Status.RUNNING
    desk.wait(lambda: not queue.isRunning)
    assert [entry.words().split(".")[0] for entry in queue.entries] == ["done, as CT"]
    assert (findResult(first) is None, findResult(second) is None) == (False, True)
    assert desk.inspections[-1].modality == "CT"
    assert not desk.logic.isBusy
    desk.segment(second, "tiny-CT-v2", releases)
    with pytest.raises(UserError):
        desk.segment(first, "tiny-CT-v2", releases)
    desk.wait(lambda: findResult(second))
    desk.rest()


def test_a_volume_for_which_nothing_fits_says_why(desk, queue, patients, releases):
    load_volume(patients["CT"])

    def refuse(_found):
        raise UserError("test.no-model", "There is no model for this.", "Get one.")

    start(queue, releases, refuse)
    desk.wait(lambda: not queue.isRunning)
    assert queue.entries[0].words() == "There is no model for this."


def beating(volume):
    """Make a sequence of the volume and its mirror image, which a proxy shows; return its browser and images."""
    images = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "heart")
    images.SetIndexName("time")
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    original = slicer.util.arrayFromVolume(volume).copy()
    for moment in range(2):
        slicer.util.updateVolumeFromArray(volume, original if moment == 0 else original[:, ::-1].copy())
        images.SetDataNodeAtValue(volume, str(moment * 40))
    browser.SetAndObserveMasterSequenceNodeID(images.GetID())
    slicer.mrmlScene.RemoveNode(volume)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser, images


def test_what_a_series_says_counts_for_all_moments_of_its_sequence(desk, queue, patients, releases):
    browser, images = beating(load_volume(patients["CT"], "heart"))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(browser.GetProxyNode(images))
    item = item or hierarchy.CreateItem(hierarchy.GetSceneItemID(), browser.GetProxyNode(images))
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")  # the voxels look like a CT
    start(queue, releases)
    desk.wait(lambda: not queue.isRunning)
    (entry,) = queue.entries
    assert (entry.status, entry.modalities) == (Status.DONE, ["MR"]), entry.error
    inside = images.GetNthDataNode(0).GetScene()
    assert inside is not slicer.mrmlScene
    assert inside.GetNumberOfNodesByClass("vtkMRMLSubjectHierarchyNode") == 0


def test_all_moments_of_a_sequence_play_along_with_their_images(desk, queue, patients, releases):
    browser, images = beating(load_volume(patients["CT"], "heart"))
    volume = browser.GetProxyNode(images)
    entries = entriesOfScene()
    assert [(entry.name, len(entry.parts)) for entry in entries] == [("heart", 2)]
    start(queue, releases)
    desk.wait(lambda: not queue.isRunning)
    entry = queue.entries[0]
    assert (entry.status, entry.done) == (Status.DONE, 2), entry.error
    assert "2 of 2" in entry.words()
    results = resultSequence(images)
    assert [results.GetNthIndexValue(number) for number in range(2)] == ["0", "40"]
    found = [resultOfFrame(images, moment) for moment in range(2)]
    assert found[0].GetSegmentation().GetNumberOfSegments() == 5
    logic = slicer.modules.sequences.logic()
    shown = []
    for moment in range(2):
        browser.SetSelectedItemNumber(moment)
        logic.UpdateProxyNodesFromSequences(browser)
        proxy = browser.GetProxyNode(results)
        assert proxy.IsA("vtkMRMLSegmentationNode")
        shown.append(voxels_of(proxy, volume))
    assert shown[0].any()
    assert (shown[0] != shown[1]).any()
    assert len({segment.GetName() for segment in (found[0].GetSegmentation().GetNthSegment(n) for n in range(5))}) == 5
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 2
