"""Several volumes in the Segment tab, through its real .ui: nothing else runs meanwhile, each gets what fits it."""

import shutil

import numpy as np
import pytest
import qt
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.SegmentLogic import Inspection, State
from FedSegSlicerLib.SegmentQueue import Status
from FedSegSlicerLib.Settings import RELEASES_FOLDER, writeSetting
from scene_helpers import load_volume, wait_until

pytestmark = pytest.mark.slicer


def opened(open_panel):
    panel = open_panel()
    panel.ready()
    panel.ui.queueCollapsibleButton.collapsed = False
    return panel


def queue_of(panel):
    return panel.widget.segmentTab.queue.queue


def rows_of(panel):
    """Return (name, state up to its first point, marked) of every row."""
    table = panel.ui.queueTable
    items = [(table.item(row, 0), table.item(row, 1)) for row in range(table.rowCount)]
    return [(name.text(), state.text().split(".")[0], name.checkState() == qt.Qt.Checked) for name, state in items]


def series_says(volume, modality):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)


def test_while_the_queue_runs_nothing_else_can_be_started_or_chosen(open_panel, patients):
    for name in ("first", "second"):
        load_volume(patients["CT"], name)
    panel = opened(open_panel)
    ui, queue, looks = panel.ui, queue_of(panel), []

    def look():
        if queue.isRunning and panel.logic.state is State.IDLE:
            looks.append((ui.segmentButton.text, ui.inputSelector.enabled, ui.undoButton.enabled, ui.queueButton.text))

    timer = qt.QTimer()
    timer.connect("timeout()", look)
    timer.start(1)
    ui.queueButton.click()
    look()
    wait_until(lambda: not queue.isRunning)
    timer.stop()
    assert set(looks) == {("Cancel", False, False, "Cancel all")}
    assert (ui.segmentButton.text, ui.inputSelector.enabled) == ("Segment", True)
    assert [state for _name, state, _marked in rows_of(panel)] == ["done, as CT"] * 2


def test_cancel_while_a_volume_is_looked_at_goes_on_with_the_next(open_panel, patients):
    volumes = [load_volume(patients["CT"], name) for name in ("first", "second")]
    panel = opened(open_panel)
    panel.ui.queueButton.click()
    assert (panel.logic.state, panel.ui.segmentButton.text) == (State.IDLE, "Cancel")
    panel.ui.segmentButton.click()
    wait_until(lambda: not queue_of(panel).isRunning)
    assert [entry.status for entry in queue_of(panel).entries] == [Status.CANCELLED, Status.DONE]
    assert [findResult(volume) is None for volume in volumes] == [True, False]


def test_each_volume_is_taken_for_what_it_is_whatever_is_chosen_above(open_panel, patients):
    ct, mr = load_volume(patients["CT"], "ct"), load_volume(patients["MR"], "mr")
    series_says(mr, "MR")
    panel = opened(open_panel)
    panel.ui.modalityComboBox.currentIndex = 1  # CT
    panel.ui.releaseComboBox.currentIndex = 1  # the old and slow one
    panel.ui.queueButton.click()
    wait_until(lambda: not queue_of(panel).isRunning)
    assert [findResult(each).GetAttribute("FedSegSlicer.Release") for each in (ct, mr)] == ["tiny-CT-v2", "tiny-MR-v1"]
    assert [state for _name, state, _marked in rows_of(panel)] == ["done, as CT", "done, as MR"]


def test_what_is_chosen_above_counts_where_it_cannot_be_told(open_panel, patients):
    load_volume(patients["CT"])
    panel = opened(open_panel)
    decide = panel.widget.segmentTab._decide
    unsure = Inspection("MR", 0.5, "it may be")
    with pytest.raises(UserError, match="Say what kind of image"):
        decide(unsure)
    panel.ui.modalityComboBox.currentIndex = 1
    assert decide(unsure) == ("CT", "tiny-CT-v2")
    assert decide(Inspection("MR", 0.99, "it is")) == ("MR", "tiny-MR-v1")


def test_marks_and_states_stay_when_the_module_is_left_and_entered(open_panel, patients):
    load_volume(patients["CT"], "left out")
    done = load_volume(patients["CT"], "done")
    slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.int16), name="flat")
    panel = opened(open_panel)
    panel.ui.queueTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    panel.ui.queueButton.click()
    wait_until(lambda: not queue_of(panel).isRunning)
    flat = panel.ui.queueTable.item(1, 1).text()
    assert "same value" in flat
    panel.ui.queueTable.item(0, 0).setCheckState(qt.Qt.Unchecked)  # "done"
    done.SetName("renamed")
    load_volume(patients["CT"], "new")
    panel.widget.exit()
    panel.widget.enter()
    panel.ready()
    assert rows_of(panel) == [
        ("left out", "", False), ("renamed", "done, as CT", False), ("flat", flat.split(".")[0], True),
        ("new", "", True)]  # fmt: skip
    assert panel.ui.queueTable.item(2, 1).toolTip()
    slicer.mrmlScene.Clear(False)
    load_volume(patients["CT"], "another")  # which gets the node ID of one that is gone
    panel.widget.enter()
    assert rows_of(panel) == [("another", "", True)]


def test_closing_the_scene_ends_the_queue(open_panel, patients):
    for name in ("first", "second"):
        load_volume(patients["CT"], name)
    panel = opened(open_panel)
    panel.ui.queueButton.click()
    wait_until(lambda: panel.ui.progressBar.value > 0)
    slicer.mrmlScene.Clear(False)
    wait_until(lambda: not panel.logic.isBusy)
    assert rows_of(panel) == []
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    panel.ui.inputSelector.setCurrentNode(load_volume(patients["CT"]))
    panel.ready()


def test_all_images_are_marked_or_none_at_once(open_panel, patients):
    """Three of fifty volumes are chosen by four clicks, not by forty-seven."""
    for name in ("first", "second", "third"):
        load_volume(patients["CT"], name)
    panel = opened(open_panel)
    ui = panel.ui
    assert [marked for *_, marked in rows_of(panel)] == [True] * 3
    assert (ui.queueAllButton.enabled, ui.queueNoneButton.enabled) == (False, True)
    ui.queueNoneButton.click()
    assert [marked for *_, marked in rows_of(panel)] == [False] * 3
    assert (ui.queueAllButton.enabled, ui.queueNoneButton.enabled) == (True, False)
    assert not ui.queueButton.enabled
    ui.queueTable.item(1, 0).setCheckState(qt.Qt.Checked)
    panel.widget.segmentTab.queue.refresh()
    assert [marked for *_, marked in rows_of(panel)] == [False, True, False]
    ui.queueAllButton.click()
    assert [marked for *_, marked in rows_of(panel)] == [True] * 3
    ui.queueButton.click()
    assert (ui.queueAllButton.enabled, ui.queueNoneButton.enabled) == (False, False)
    ui.queueButton.click()
    wait_until(lambda: not queue_of(panel).isRunning)


def test_the_button_says_why_it_cannot_be_pressed(open_panel, patients):
    panel = open_panel()
    button = panel.ui.queueButton
    panel.ui.queueCollapsibleButton.collapsed = False
    assert (button.enabled, button.toolTip) == (False, "There is no image in the scene.")
    volume = load_volume(patients["CT"])
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ready()
    panel.widget.segmentTab.queue.refresh()
    assert button.enabled
    assert "each with the newest model" in button.toolTip
    panel.ui.queueTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert (button.enabled, button.toolTip) == (False, "Mark the images to segment.")
    panel.ui.queueTable.item(0, 0).setCheckState(qt.Qt.Checked)
    panel.ui.segmentButton.click()
    assert not button.enabled
    assert "A volume is being segmented" in button.toolTip
    panel.idle()
    assert button.enabled
    writeSetting(RELEASES_FOLDER, "")
    panel.widget.segmentTab.queue.update()
    assert not button.enabled
    assert "under Settings" in button.toolTip


@pytest.mark.parametrize("name", ["resultTable", "queueTable"])
def test_a_table_is_reached_and_left_with_the_tab_key(open_panel, name):
    table = getattr(open_panel().ui, name)
    assert table.focusPolicy & qt.Qt.TabFocus
    assert not table.tabKeyNavigation


def test_images_that_come_and_go_while_the_list_is_open_are_listed(open_panel, patients):
    load_volume(patients["CT"], "first")
    panel = opened(open_panel)
    panel.ui.queueTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    second = load_volume(patients["MR"], "second")
    wait_until(lambda: rows_of(panel) == [("first", "", False), ("second", "", True)])
    slicer.mrmlScene.RemoveNode(second)
    wait_until(lambda: rows_of(panel) == [("first", "", False)])
    assert panel.ui.queueButton.toolTip == "Mark the images to segment."


def test_nothing_is_queued_before_the_models_are_known(open_panel, patients, releases, tmp_path):
    """A volume whose series says what it is would fail at once: there would be no model for it yet."""
    series_says(load_volume(patients["CT"]), "CT")
    panel = opened(open_panel)
    button, models = panel.ui.queueButton, panel.ui.releaseComboBox
    assert button.enabled
    panel.ui.releasesPathEdit.currentPath = str(shutil.copytree(releases, tmp_path / "releases"))
    assert (button.enabled, button.toolTip) == (False, "Looking for models…")
    wait_until(lambda: button.enabled)
    panel.widget.exit()
    panel.widget.enter()
    assert (button.enabled, models.count) == (True, 2)  # what is known of the same folder can be used meanwhile
    shutil.rmtree(tmp_path / "releases" / "tiny-CT-v1")
    panel.widget.enter()
    wait_until(lambda: models.count == 1)
