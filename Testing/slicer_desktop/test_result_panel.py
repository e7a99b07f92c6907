"""What the Segment tab shows of results, through its real .ui, with the real worker: one click, Undo, doubts."""

from dataclasses import replace

import numpy as np
import pytest
import qt
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.ResultPanel import meanWords, volumeWords
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.SegmentLogic import State
from panel_helpers import Ticks, check_nothing_is_clipped, outcome_to_check, segmented, show_result, table_of
from scene_helpers import bring_in, keep_pictures, load_volume, make_finer, wait_until

pytestmark = pytest.mark.slicer


def test_one_click_from_volume_to_result_and_the_panel_stays_alive(open_panel, patients):
    """While a segmentation runs, the event loop ticks; no step holds it up for long."""
    volume = load_volume(patients["CT"], "CT abdomen")
    make_finer(volume, 3)  # else all is done in a tenth of a second on a fast computer, in hardly twenty ticks
    panel = open_panel()
    ui = panel.ui
    assert not ui.segmentButton.enabled
    assert ui.segmentButton.toolTip
    panel.ready()
    assert panel.parameters.inputVolume is volume
    assert ui.modalityLabel.text.startswith("CT, ")
    assert [ui.releaseComboBox.itemText(n) for n in range(ui.releaseComboBox.count)] == [
        "tiny-CT, version 2 (signer unknown)", "tiny-CT, version 1 (signer unknown)"]  # fmt: skip
    assert ui.releaseComboBox.currentIndex == 0
    assert "liver" in ui.releaseLabel.text
    ui.aboutCollapsibleButton.collapsed = False
    assert ui.aboutLabel.isVisible()
    for words in ("tiny-CT-v2", "federation tests (fedavg)", "Signer unknown", "No scores."):
        assert words in ui.aboutLabel.text
    assert ui.aboutLabel.focusPolicy & qt.Qt.TabFocus  # its text can be reached and read without a mouse
    ui.aboutCollapsibleButton.collapsed = True
    ticks = Ticks(2)
    stages = []
    panel.logic.progressed.connect(lambda progress: stages.append(ui.progressLabel.text))
    ticks.begin()
    ui.segmentButton.click()
    assert (ui.segmentButton.text, ui.segmentButton.enabled) == ("Cancel", True)
    assert ui.progressBar.isVisible()
    assert not ui.inputSelector.enabled
    wait_until(lambda: panel.logic.state is State.IDLE)
    ticks.end()
    assert len(ticks.gaps) > 20
    assert np.median(ticks.gaps) < 0.1
    assert max(ticks.busy) < 0.1
    assert len(set(stages)) > 2
    assert ui.segmentButton.text == "Segment"
    assert not ui.progressBar.isVisible()
    assert ui.resultCollapsibleButton.isVisible()
    names = [name.split("  ")[0] for name, _ in table_of(ui)]
    assert names == ["Liver", "Right kidney", "Left kidney", "Spleen", "Lesion"]
    assert "tiny-CT-v2" in ui.resultLabel.text
    assert "Signer unknown" in ui.resultLabel.text
    panel.widget.exit()
    panel.widget.enter()
    assert ui.resultCollapsibleButton.isVisible()  # still there after a look at another module
    node = findResult(volume)
    wait_until(lambda: node.GetDisplayNode().GetVisibility3D() and node.GetSegmentation().ContainsRepresentation(
        "Closed surface"))  # fmt: skip


def test_undo_and_redo_of_a_second_run_and_undo_of_the_first(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    node = findResult(volume)
    first = node.GetSegmentation()
    first.GetSegment("Segment_1").SetName("Leber")
    assert (panel.ui.undoButton.text, panel.ui.undoButton.enabled) == ("Undo", True)
    panel.ui.segmentButton.click()
    assert not panel.ui.undoButton.enabled
    panel.idle()
    assert table_of(panel.ui)[0][0].startswith("Leber")
    panel.ui.undoButton.click()
    assert node.GetSegmentation() is first
    assert panel.ui.undoButton.text == "Redo"
    assert not panel.ui.resultTable.isEnabled()
    panel.ui.undoButton.click()
    assert node.GetSegmentation() is not first
    assert panel.ui.undoButton.text == "Undo"
    slicer.mrmlScene.RemoveNode(node)
    panel.ui.segmentButton.click()
    panel.idle()
    panel.ui.undoButton.click()
    assert findResult(volume) is None
    assert not panel.ui.resultCollapsibleButton.isVisible()
    panel.ui.segmentButton.click()
    panel.idle()
    assert findResult(volume).GetName() == "CT abdomen segmentation"  # and not another number every time


def test_several_volumes_are_marked_segmented_and_told(open_panel, patients):
    first, second = load_volume(patients["CT"], "first"), load_volume(patients["CT"], "second")
    slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.int16), name="flat")
    panel = open_panel()
    panel.ready()
    ui = panel.ui
    ui.queueCollapsibleButton.collapsed = False
    rows = lambda: [ui.queueTable.item(n, 0).text() for n in range(ui.queueTable.rowCount)]  # noqa: E731
    assert rows() == ["first", "second", "flat"]
    assert (ui.queueButton.text, ui.queueButton.enabled) == ("Segment 3 volumes", True)
    ui.queueTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert ui.queueButton.text == "Segment 2 volumes"
    ui.queueButton.click()
    assert rows() == ["second", "flat"]
    assert ui.queueButton.text == "Cancel all"
    wait_until(lambda: not panel.widget.segmentTab.queue.queue.isRunning)
    assert findResult(first) is None
    assert findResult(second) is not None
    states = [ui.queueTable.item(n, 1).text() for n in range(2)]
    assert states[0].startswith("done")
    assert "same value" in states[1]
    assert ui.queueTable.item(1, 1).toolTip()
    assert not ui.resultCollapsibleButton.isVisible()  # the volume chosen above was not among them


def test_cancelling_another_run_brings_the_former_result_back(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    ui = panel.ui
    shown = table_of(ui)
    ui.releaseComboBox.currentIndex = 1  # the slow one
    ui.segmentButton.click()
    assert not ui.resultCollapsibleButton.isVisible()
    wait_until(lambda: ui.progressBar.value > 0)
    ui.segmentButton.click()
    panel.idle()
    assert (ui.progressLabel.isVisible(), ui.progressLabel.text) == (True, "Cancelled.")
    assert ui.resultCollapsibleButton.isVisible()
    assert table_of(ui) == shown
    assert "tiny-CT-v2" in ui.resultLabel.text
    assert ui.undoButton.enabled
    ui.undoButton.click()
    assert findResult(volume) is None
    assert not ui.resultCollapsibleButton.isVisible()


def test_every_volume_of_the_queue_shows_its_result_when_it_is_chosen(open_panel, patients):
    """The result of another volume, which may lie in the same place, is put aside meanwhile."""
    volumes = [load_volume(patients["CT"], name) for name in ("first", "second")]
    panel = open_panel()
    panel.ready()
    ui = panel.ui
    ui.queueCollapsibleButton.collapsed = False
    ui.queueButton.click()
    wait_until(lambda: not panel.widget.segmentTab.queue.queue.isRunning)
    visible = lambda: [findResult(each).GetDisplayNode().GetVisibility() for each in volumes]  # noqa: E731
    assert visible() == [1, 0]  # the chosen one, and not the last one of the queue
    for chosen, expected in ((1, [0, 1]), (0, [1, 0]), (1, [0, 1])):
        ui.inputSelector.setCurrentNode(volumes[chosen])
        assert ui.resultCollapsibleButton.isVisible()
        assert visible() == expected
    findResult(volumes[1]).GetDisplayNode().SetVisibility(False)  # as the user wants it
    ui.inputSelector.setCurrentNode(None)
    assert not ui.resultCollapsibleButton.isVisible()
    ui.inputSelector.setCurrentNode(volumes[1])
    assert visible() == [0, 0]
    slicer.mrmlScene.RemoveNode(findResult(volumes[0]))
    ui.inputSelector.setCurrentNode(volumes[0])
    assert not ui.resultCollapsibleButton.isVisible()


def test_what_became_of_each_volume_can_be_read_in_the_narrow_table(open_panel, patients):
    load_volume(patients["CT"], "a name such as scanners give, which is longer than what stands beside it")
    for number in range(2):
        slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.int16), name=f"flat {number}")
    panel = open_panel()
    panel.ready()
    ui = panel.ui
    panel.widget.parent._qt_object.resize(340, 1400)
    ui.queueCollapsibleButton.collapsed = False
    ui.queueButton.click()
    wait_until(lambda: not panel.widget.segmentTab.queue.queue.isRunning)
    slicer.app.processEvents()
    table = ui.queueTable._qt_object
    assert not table.horizontalScrollBar().isVisible()
    assert not table.verticalScrollBar().isVisible()
    for row in range(3):
        assert table.visualItemRect(table.item(row, 1)).height() >= table.sizeHintForRow(row)
    assert ui.queueCollapsibleButton.height <= ui.queueCollapsibleButton.sizeHint.height()  # not blown up


def test_what_to_check_is_marked_with_its_reason(open_panel, patients):
    volume = load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    outcome = outcome_to_check(volume)
    show_result(panel, outcome, volume)
    assert [name for name, _ in table_of(panel.ui)] == ["Liver", "Spleen  \u26a0"]
    assert panel.ui.resultTable.item(0, 2).text() == "61"
    assert panel.ui.resultTable.horizontalHeaderItem(2).text() == "Mean (HU)"
    assert "<b>spleen</b>: not found" in panel.ui.checkLabel.text
    assert "liver" not in panel.ui.checkLabel.text
    assert panel.ui.resultTable.item(1, 0).toolTip().startswith("Please check: not found")
    assert outcome.notes[0] in panel.ui.resultLabel.text
    unlike = "this image looks unlike those the model was trained on, so the whole result needs a look"
    show_result(panel, replace(outcome, rows=outcome.rows[:1], checks=(unlike,)), volume)
    assert panel.ui.checkLabel.isVisible()
    assert f"<b>Everything</b>: {unlike}." in panel.ui.checkLabel.text
    show_result(panel, replace(outcome, rows=outcome.rows[:1], intensityUnit=""), volume)
    assert not panel.ui.checkLabel.isVisible()
    assert panel.ui.resultTable.horizontalHeaderItem(2).text() == "Mean"


def test_another_volume_clears_the_former_result(open_panel, patients):
    first = load_volume(patients["CT"], "first")
    second = load_volume(patients["MR"], "second")
    panel = open_panel()
    panel.ui.inputSelector.setCurrentNode(first)
    panel.ready()
    panel.ui.segmentButton.click()
    panel.idle()
    assert panel.ui.resultCollapsibleButton.isVisible()
    panel.ui.inputSelector.setCurrentNode(second)
    assert not panel.ui.resultCollapsibleButton.isVisible()
    assert not panel.ui.segmentButton.enabled
    panel.ui.modalityComboBox.currentIndex = 2
    panel.ready()
    assert panel.ui.releaseComboBox.currentText == "tiny-MR, version 1 (signer unknown)"


@pytest.mark.parametrize("width", [340, 420])
def test_pictures_of_every_state_have_no_clipped_text(open_panel, patients, tmp_path, width):
    panel = open_panel()
    panel.widget.parent._qt_object.resize(width, 900)

    def picture(name):
        check_nothing_is_clipped(panel)
        panel.picture(tmp_path / f"segment-tab-{name}-{width}.png")

    picture("empty")
    volume = load_volume(patients["CT"], "CT abdomen")
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ready()
    picture("ready")
    panel.ui.aboutCollapsibleButton.collapsed = False
    picture("about")
    assert panel.widget.parent._qt_object.minimumSizeHint().width() <= width  # Slicer would scroll sideways
    panel.ui.aboutCollapsibleButton.collapsed = True
    panel.ui.releaseComboBox.currentIndex = 1
    panel.ui.segmentButton.click()
    wait_until(lambda: panel.ui.progressBar.value > 150)
    picture("running")
    panel.idle()
    picture("result")
    show_result(panel, outcome_to_check(volume), volume)
    picture("please-check")
    panel.ui.queueCollapsibleButton.collapsed = False
    picture("several")
    panel.ui.queueCollapsibleButton.collapsed = True
    panel.logic.failed.emit(
        UserError("device.memory", "The graphics card has too little memory for this image, even in small pieces.",
                  "Compute on the processor, or close other programs that use the graphics card.")
    )  # fmt: skip
    picture("error")
    keep_pictures(tmp_path)


def test_a_result_that_was_put_aside_elsewhere_is_shown_when_its_volume_is_chosen(open_panel, patients):
    """As after a scene was loaded, or a script segmented several volumes: nothing is known of it but that."""
    volumes = [load_volume(patients["CT"], name) for name in ("first", "second", "third")]
    for volume in volumes[:2]:
        bring_in(patients["CT.labels"], volume)
    visible = lambda: [findResult(each).GetDisplayNode().GetVisibility() for each in volumes[:2]]  # noqa: E731
    assert visible() == [0, 1]
    panel = open_panel()
    for chosen, expected in ((0, [1, 0]), (1, [0, 1]), (2, [0, 1]), (0, [1, 0])):
        panel.ui.inputSelector.setCurrentNode(volumes[chosen])
        assert visible() == expected
        assert not panel.ui.resultCollapsibleButton.isVisible()


@pytest.mark.parametrize(
    ("milliliters", "words"),
    [(0.0, "not found"), (0.00042, "< 0.001"), (0.03, "0.03"), (0.347, "0.35"), (1.04, "1.0"), (1432.06, "1,432.1")],
)
def test_the_volume_of_a_small_lesion_does_not_read_as_nothing(milliliters, words):
    assert volumeWords(milliliters) == words


@pytest.mark.parametrize(
    ("mean", "words"),
    [(None, ""), (61.2, "61"), (-1234.5, "-1,234"), (9.87, "9.87"), (0.001234, "0.00123"), (0.0, "0"), (-0.4, "-0.4")],
)
def test_a_mean_of_small_values_is_not_shown_as_nothing(mean, words):
    assert meanWords(mean) == words
