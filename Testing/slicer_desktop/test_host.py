"""The host keeps PythonQt's rules as SLICER.md measured them in a real Slicer."""

import ctk
import pytest
import qt
import slicer
from host import pythonqt


@pytest.mark.parametrize(
    ("widget", "name", "value"),
    [
        ("QLineEdit", "text", ""),
        ("QComboBox", "currentText", ""),
        ("QComboBox", "count", 0),
        ("QSpinBox", "value", 0),
        ("QTableWidget", "rowCount", 0),
        ("QTabWidget", "currentIndex", -1),
        ("QLabel", "text", ""),
        ("QProgressBar", "value", -1),
    ],
)
def test_properties_are_values_and_calling_them_fails(widget, name, value):
    made = getattr(qt, widget)()
    assert getattr(made, name) == value
    with pytest.raises(TypeError, match="not callable"):
        getattr(made, name)()


def test_methods_that_are_not_properties_are_called():
    button, combo = qt.QPushButton("Go"), qt.QComboBox()
    combo.addItem("a")
    combo.addItem("b")
    assert combo.itemText(1) == "b"
    assert button.isEnabled()
    button.enabled = False
    assert not button.isEnabled()
    button.setEnabled(True)
    assert button.enabled
    assert not qt.QCheckBox().isChecked()
    assert qt.QProcess().state() == qt.QProcess.NotRunning


def test_a_misspelt_property_is_an_error():
    with pytest.raises(AttributeError):
        qt.QPushButton().enabeld = False


def test_a_signal_has_exactly_its_arguments():
    with pytest.raises(AttributeError, match="no signal"):
        qt.QSlider().connect("valueChanged(double)", print)
    qt.QSlider().connect("valueChanged(int)", print)


def test_both_forms_of_connecting_give_what_slicer_gives():
    got = []
    button = qt.QPushButton()
    button.clicked.connect(lambda *args: got.append(args))
    button.connect("clicked(bool)", lambda *args: got.append(args))
    button.connect("clicked()", lambda *args: got.append(args))
    button.click()
    assert sorted(got) == [(), (False,), (False,)]


def test_an_error_in_a_slot_is_printed_and_not_raised(capsys):
    button = qt.QPushButton()
    button.clicked.connect(lambda checked: 1 / 0)
    button.click()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert [type(error) for error in pythonqt.slot_errors] == [ZeroDivisionError]
    pythonqt.slot_errors.clear()


def test_bytes_of_a_process_and_node_selectors_follow_the_scene():
    process = qt.QProcess()
    process.start("python3", ["-c", "print('hi')"])
    process.waitForFinished()
    assert process.readAllStandardOutput().data().strip() == b"hi"
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    assert selector.currentNode() is node
    slicer.mrmlScene.RemoveNode(node)
    assert selector.currentNode() is None


def test_what_is_shown_or_hidden_in_a_folded_frame_is_so_once_it_is_opened():
    frame, first, second = ctk.ctkCollapsibleButton(), qt.QLabel("1"), qt.QLabel("2")
    for label in (first, second):
        label.setParent(frame)
    second.setVisible(False)
    frame.show()
    frame.collapsed = True
    assert not first.isVisible()
    first.setVisible(False)
    second.setVisible(True)
    assert not second.isVisible()
    frame.collapsed = False
    assert second.isVisible()
    assert not first.isVisible()
