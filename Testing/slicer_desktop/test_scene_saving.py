"""What was chosen is in a scene's file: saved, closed, loaded, and shown again by the widgets."""

import pytest
import slicer
from panel_helpers import Panel
from scene_helpers import save_and_load
from see_helpers import small_outline, small_scan

pytestmark = pytest.mark.slicer


def shown(ui):
    """Return what each widget that belongs to a parameter shows, nodes by their names."""
    found = {}
    for name, widget in vars(ui).items():
        if not widget.property("SlicerParameterName"):
            continue
        kind = widget.className()
        if kind == "qMRMLNodeComboBox":
            found[name] = widget.currentNode() and widget.currentNode().GetName()
        elif kind == "QComboBox":
            found[name] = widget.currentText
        else:
            found[name] = widget.checked if kind == "QCheckBox" else widget.value
    found["seeStrengthRange"] = ui.seeStrengthRange.minimumValue, ui.seeStrengthRange.maximumValue
    return found


def choose_otherwise(ui, nodes):
    """Let every such widget show something else than at first."""
    for widget in vars(ui).values():
        if not widget.property("SlicerParameterName"):
            continue
        kind = widget.className()
        if kind == "qMRMLNodeComboBox":
            widget.setCurrentNode(nodes[widget.nodeTypes[0]])
        elif kind == "QComboBox":
            widget.setCurrentIndex(widget.count - 1)
        elif kind == "QCheckBox":
            widget.click()
        else:
            widget.value = widget.value + 1
    ui.seeStrengthRange.setValues(0.25, 0.5)


def test_every_choice_is_saved_with_the_scene_and_shown_again(open_panel, tmp_path):
    panel = open_panel()
    first = shown(panel.ui)
    small_scan("MR", "another")
    volume = small_scan("CT", "CT abdomen")
    choose_otherwise(panel.ui, {"vtkMRMLScalarVolumeNode": volume, "vtkMRMLSegmentationNode": small_outline(volume)})
    chosen = shown(panel.ui)
    assert {name for name in chosen if chosen[name] == first[name]} == set()
    assert len(chosen) > 12
    save_and_load(tmp_path)
    assert shown(panel.ui) == chosen
    again = Panel()
    try:
        assert shown(again.ui) == chosen
    finally:
        again.widget.cleanup()
        again.widget.parent._qt_object.deleteLater()
    slicer.mrmlScene.Clear(False)
    closed = shown(panel.ui)
    assert closed["inputSelector"] is None
    assert closed["seeSeedSpinBox"] == first["seeSeedSpinBox"]
