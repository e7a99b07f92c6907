"""Selectors of nodes, which Slicer's own keep from the keyboard."""

import pytest
from FedSegSlicerLib.NodeSelectors import letKeysReach
from host.pythonqt import wrap
from PySide6 import QtCore, QtWidgets
from PySide6.QtTest import QTest

pytestmark = pytest.mark.slicer


class SlicersSelector(QtWidgets.QWidget):
    """A selector of nodes as Slicer has it: the list inside hands the keyboard on to what is around it."""

    def __init__(self, parent):
        super().__init__(parent)
        self.inside = QtWidgets.QComboBox(self)
        self.inside.addItems(["first", "second"])
        self.inside.setFocusProxy(self)


def test_selectors_of_nodes_are_reached_and_used_with_the_keyboard():
    window = QtWidgets.QWidget()
    before, selector = QtWidgets.QPushButton(window), SlicersSelector(window)
    letKeysReach([wrap(selector)])
    window.show()
    window.activateWindow()
    before.setFocus()
    QTest.keyClick(before, QtCore.Qt.Key.Key_Tab)
    assert window.focusWidget() is selector.inside
    QTest.keyClick(selector.inside, QtCore.Qt.Key.Key_Down)
    assert selector.inside.currentText() == "second"
    before.setFocus()
    selector.setFocus()  # as the letter of its label does
    assert window.focusWidget() is selector.inside
    window.deleteLater()
