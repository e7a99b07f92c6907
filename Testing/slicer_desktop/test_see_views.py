"""The original and its samples side by side in the main window's slice views, which others use, too."""

import pytest
import slicer
import vtk
from FedSegSlicerLib.Outlines import OUTLINED, fillAgain, followScene, outlineAll
from scene_helpers import wait_until
from see_helpers import small_outline, small_scan

pytestmark = pytest.mark.slicer


def test_side_by_side_in_linked_slice_views(main_window, open_see_panel):
    volume = small_scan("CT")
    main_window.setLayout(3)
    panel = open_see_panel()
    assert panel.ui.seeViewsCheckBox.isVisibleTo(panel.ui.seeSamplesCollapsibleButton._qt_object)
    panel.ui.seeSamplesSpinBox.value = 3
    panel.show()
    assert main_window.shown() == panel.logic.volumes.nodes()
    assert len(main_window.shown()) == 4
    wait_until(main_window.linked)
    first = main_window.slicePlaces()
    assert first == pytest.approx([panel.tab._point()[2]] * 4, abs=0.001)
    panel.ui.seeSliceSlider.value = panel.ui.seeSliceSlider.value - 3
    step = panel.logic.scene.original.ijkToLPS[2][2]
    assert main_window.slicePlaces()[0] == pytest.approx(first[0] - 3 * step, abs=0.01)
    assert len(set(main_window.slicePlaces())) == 1
    panel.ui.seeViewsCheckBox.click()
    assert main_window.layout == 3
    panel.ui.seeViewsCheckBox.click()
    assert len(main_window.shown()) == 4
    panel.ui.seeSamplesSpinBox.value = 1
    panel.whole()
    wait_until(lambda: len(main_window.shown()) == 2)
    panel.ui.seeVolumeSelector.setCurrentNode(None)
    assert main_window.layout == 3
    assert slicer.mrmlScene.IsNodePresent(volume)
    assert "currentViewArrangement" in saved_scene()


def test_segments_are_outlines_while_samples_are_side_by_side(main_window, open_see_panel):
    volume = small_scan("CT")
    displays = [small_outline(volume).GetDisplayNode() for _ in range(2)]
    displays[1].SetVisibility2DFill(False)
    panel = open_see_panel()
    panel.show()
    assert [display.GetVisibility2DFill() for display in displays] == [0, 0]
    panel.ui.seeViewsCheckBox.click()
    assert [display.GetVisibility2DFill() for display in displays] == [1, 0]


def test_the_slice_views_are_given_back_while_another_tab_or_module_is_shown(main_window, open_see_panel):
    small_scan("CT")
    main_window.setLayout(3)
    panel = open_see_panel()
    panel.show()
    panel.ui.tabWidget.setCurrentWidget(panel.ui.segmentTab)
    assert main_window.layout == 3
    panel.ui.tabWidget.setCurrentWidget(panel.ui.seeTab)
    assert main_window.shown() == panel.logic.volumes.nodes()
    panel.widget.exit()
    assert main_window.layout == 3
    panel.widget.enter()
    assert main_window.shown() == panel.logic.volumes.nodes()


def test_a_layout_that_the_user_chooses_meanwhile_stays(main_window, open_see_panel):
    volume = small_scan("CT")
    display = small_outline(volume).GetDisplayNode()
    panel = open_see_panel()
    panel.show()
    main_window.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    panel.parameters.inputVolume = None
    assert main_window.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    assert not panel.ui.seeViewsCheckBox.isChecked()
    assert display.GetVisibility2DFill()
    panel.ui.seeViewsCheckBox.click()
    assert main_window.shown() == panel.logic.volumes.nodes()


def test_samples_of_a_volume_elsewhere_are_brought_into_view(main_window, open_see_panel):
    small_scan("CT", "here")
    far = small_scan("CT", "far away")
    matrix = vtk.vtkMatrix4x4()
    far.GetIJKToRASMatrix(matrix)
    matrix.SetElement(0, 3, matrix.GetElement(0, 3) + 1000.0)
    far.SetIJKToRASMatrix(matrix)
    panel = open_see_panel()
    panel.ui.seeVolumeSelector.setCurrentNode(slicer.util.getNode("here"))
    panel.show()
    before = main_window.centers()
    panel.ui.seeVolumeSelector.setCurrentNode(far)
    panel.show()
    for old, new in zip(before, main_window.centers(), strict=True):
        assert new[0] == pytest.approx(old[0] + 1000.0, abs=1.0)


def test_a_scene_saved_meanwhile_knows_nothing_of_the_samples_and_their_layout(main_window, open_see_panel):
    small_scan("CT", "the scan")
    main_window.setLayout(3)
    panel = open_see_panel()
    panel.show()
    assert len(main_window.shown()) > 1
    text = saved_scene()
    assert "the scan" in text
    assert not [line[:150] for line in text.splitlines() if "FedSegGin" in line]
    assert "currentViewArrangement" not in text


def test_segments_of_a_scene_saved_meanwhile_are_filled_where_it_is_loaded():
    volume = small_scan("CT")
    small_outline(volume)
    small_outline(volume).GetDisplayNode().SetVisibility2DFill(False)
    outlineAll()
    saved = saved_scene()
    tag = followScene(slicer.mrmlScene)
    try:
        load_into_scene(saved, clear=False)
        assert fills() == [0, 0, 1, 0]  # those that are outlines now stay so
        fillAgain()
        assert fills() == [1, 0, 1, 0]
        load_into_scene(saved, clear=True)
        assert fills() == [1, 0]
        assert OUTLINED not in saved_scene()
    finally:
        slicer.mrmlScene.RemoveObserver(tag)


def fills() -> list[int]:
    """Return which segmentations of the scene are filled."""
    displays = slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")
    return [int(display.GetVisibility2DFill()) for display in displays]


def load_into_scene(text: str, clear: bool) -> None:
    """Load what ``saved_scene`` gave."""
    scene = slicer.mrmlScene
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    try:
        (scene.Connect if clear else scene.Import)()
    finally:
        scene.SetLoadFromXMLString(0)


def saved_scene() -> str:
    """Return what Slicer would write of the scene."""
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    slicer.mrmlScene.SetSaveToXMLString(0)
    return slicer.mrmlScene.GetSceneXMLString()
