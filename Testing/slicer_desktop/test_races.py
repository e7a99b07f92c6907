"""What the user takes away at the very moment in which it is needed."""

import pytest
import qt
import slicer
from FedSegSlicerLib import Background, ResultImport
from FedSegSlicerLib.ResultPlace import resultSequence
from FedSegSlicerLib.SegmentQueue import Status
from panel_helpers import segmented
from scene_helpers import load_volume, wait_until
from test_moments import Beating

pytestmark = pytest.mark.slicer


def when_placed(monkeypatch, happens):
    """Let something happen as soon as a result has got into the scene, before it is shown; return a list it fills."""
    done = []
    record = ResultImport.recordOf

    def recording(answer):
        qt.QTimer.singleShot(0, lambda: done.append(happens()))
        return record(answer)

    monkeypatch.setattr(ResultImport, "recordOf", recording)
    monkeypatch.setattr(Background, "TURN_SECONDS", 1e-6)  # one step at a time, with all events in between
    return done


def test_closing_the_scene_while_a_result_is_being_shown_tells_of_no_error(open_panel, patients, monkeypatch):
    load_volume(patients["CT"], "CT abdomen")
    panel = open_panel()
    panel.ready()
    closed = when_placed(monkeypatch, lambda: slicer.mrmlScene.Clear(False))
    panel.ui.segmentButton.click()
    panel.idle()
    wait_until(lambda: closed)
    wait_until(lambda: slicer.app.paused == 0)
    assert not panel.ui.messageLabel.isVisible()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    monkeypatch.undo()
    panel, _volume = segmented(open_panel, patients)  # and the next one is as any other
    assert panel.ui.resultCollapsibleButton.isVisible()


@pytest.mark.parametrize(("what", "code", "moments"), [("images", "volume.gone", 1), ("browser", "volume.gone", 1),
                                                          ("results", "image.constant", 3)])  # fmt: skip
def test_a_sequence_that_is_removed_while_it_is_segmented_stops_nothing(
    what, code, moments, open_panel, patients, monkeypatch
):
    """Its other moments are given up, since there is no place for their results; not where only those were removed."""
    heart = Beating(patients["CT"], open_panel())
    queue = heart.panel.widget.segmentTab.queue.queue
    asked = []
    look = heart.panel.logic.lookAt
    monkeypatch.setattr(heart.panel.logic, "lookAt", lambda node, *rest: (asked.append(node), look(node, *rest)))

    def remove():
        if not slicer.mrmlScene.IsNodePresent(heart.images):
            return  # this is the other volume's result
        node = {"images": heart.images, "browser": heart.browser, "results": resultSequence(heart.images)}[what]
        if node is not None and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)

    removed = when_placed(monkeypatch, remove)
    load_volume(patients["CT"], "another")
    slicer.app.processEvents()
    heart.panel.ui.queueButton.click()
    wait_until(lambda: not queue.isRunning and removed)
    sequence, other = queue.entries
    assert (sequence.status, sequence.error.code) == (Status.FAILED, code)
    assert len(asked) == moments + 1
    assert other.status is Status.DONE
    wait_until(lambda: slicer.app.paused == 0)
