"""A temporary folder whose disk has no room for what the worker writes: told in words, and nothing of it is left."""

import sys

import psutil
import pytest
import slicer
from FedSegSlicerLib.SeeTypes import SeeState
from FedSegSlicerLib.SegmentationResult import findResult
from panel_helpers import segmented
from scene_helpers import wait_until

pytestmark = [
    pytest.mark.slicer,
    pytest.mark.skipif(sys.platform != "linux", reason="a limit on file sizes plays the full disk"),
]


def limit_worker(panel, size: int) -> None:
    """Let the workers write no file beyond this size (-1: any), as on a full disk."""
    import resource

    for process in psutil.Process().children(recursive=True):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, -1))


def test_a_result_for_which_there_is_no_room_is_told_and_the_former_one_stays(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    ui, former = panel.ui, findResult(volume).GetSegmentation()
    limit_worker(panel, 1024)
    try:
        ui.segmentButton.click()
        panel.idle()
    finally:
        limit_worker(panel, -1)
    assert "could not be written to the temporary folder" in ui.messageLabel.text
    assert "disk.full" in ui.messageLabel.text
    assert findResult(volume).GetSegmentation() is former
    assert ui.resultCollapsibleButton.isVisible()
    assert [path.name for path in panel.logic._exchange.folder().iterdir() if path.is_dir()] == []
    ui.segmentButton.click()
    panel.idle()
    assert not ui.messageLabel.isVisible()


def test_samples_for_which_there_is_no_room_are_told_and_leave_nothing(open_panel, patients):
    panel, _volume = segmented(open_panel, patients)
    ui, logic = panel.ui, panel.widget.seeTab.logic
    ui.tabWidget.setCurrentWidget(ui.seeTab)
    limit_worker(panel, 1024)
    try:
        ui.seeShowButton.click()
        wait_until(lambda: logic.state is SeeState.IDLE)
    finally:
        limit_worker(panel, -1)
    slicer.app.processEvents()
    assert "could not be written to the temporary folder" in ui.seeMessageLabel.text
    assert "disk.full" in ui.seeMessageLabel.text
    assert [path.name for path in logic.folder().iterdir() if path.is_dir()] == []
