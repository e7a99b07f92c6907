"""The tabs together: each is as high as it needs to be, and none says what is no longer so."""

import pytest
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.RuntimeLocator import otherVersionError
from PySide6 import QtWidgets
from scene_helpers import load_volume, wait_until

pytestmark = pytest.mark.slicer


def test_a_tab_is_not_as_high_as_the_highest(open_panel):
    panel = open_panel()
    tabs, pages = panel.ui.tabWidget, (panel.ui.segmentTab, panel.ui.seeTab, panel.ui.federationTab)
    heights = []
    for page in pages:
        tabs.setCurrentWidget(page)
        slicer.app.processEvents()
        assert page._qt_object.heightForWidth(400) > 0
        heights.append(tabs._qt_object.heightForWidth(400) - page._qt_object.heightForWidth(400))
        others = [each._qt_object.heightForWidth(400) for each in pages if each is not page]
        assert max(others) <= 0
    assert len(set(heights)) == 1  # the bar of the tabs and a frame


def test_the_panel_is_no_higher_than_the_module_after_another_module_was_shown(open_panel):
    panel = open_panel()
    slicer_panel = QtWidgets.QWidget()
    layout, widget = QtWidgets.QVBoxLayout(slicer_panel), panel.widget.parent._qt_object
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(widget)
    slicer_panel.resize(440, 700)
    slicer_panel.show()
    lost = layout.takeAt(0)  # as Slicer does when the module is left: it is never deleted
    layout.addWidget(widget)
    label = panel.ui.messageLabel
    label.text = "<br>".join(["one line of many"] * 80)
    label.setVisible(True)
    wait_until(lambda: layout.heightForWidth(440) > 1200)
    label.setVisible(False)
    wait_until(lambda: layout.heightForWidth(440) == widget.heightForWidth(440) < 1200)
    assert lost is not None
    widget.setParent(None)
    slicer_panel.deleteLater()


def test_what_lies_in_a_tab_stays_there(open_panel):
    panel = open_panel()
    ui = panel.ui
    for page, inside in ((ui.segmentTab, ui.segmentButton), (ui.seeTab, ui.seeShowButton)):
        ui.tabWidget.setCurrentWidget(page)
        assert inside.isVisible()
        assert page._qt_object.isAncestorOf(inside._qt_object)


def test_a_missing_runtime_is_told_no_longer_than_it_is_missing(open_panel):
    panel = open_panel()
    missing = UserError("runtime.missing", "No runtime.", "Press Install.")
    tabs = panel.widget.federationTab, panel.widget.seeTab
    for tab in tabs:
        tab._onFailed(missing)
    assert "No runtime." in panel.ui.fedMessageLabel.text
    assert "No runtime." in panel.ui.seeMessageLabel.text
    panel.widget._onRuntimeChanged()
    assert not panel.ui.fedMessageLabel.text
    assert tabs[1]._error is None
    for tab in tabs:
        tab._onFailed(UserError("disk.full", "No room.", "Make some."))
    panel.widget._onRuntimeChanged()
    assert "No room." in panel.ui.fedMessageLabel.text
    assert tabs[1]._error is not None


def test_a_runtime_of_another_version_is_told_no_longer_than_it_is_there(open_panel, patients):
    load_volume(patients["CT"], "CT abdomen")
    panel = open_panel()
    panel.ready()
    panel.logic.session.started.emit(otherVersionError("0.0.1"))
    assert "0.0.1" in panel.ui.messageLabel.text
    panel.logic.failed.emit(UserError("image.constant", "It is empty.", "Choose another."))
    panel.logic.session.started.emit(None)
    assert "It is empty." in panel.ui.messageLabel.text  # which is no fault of the runtime's
    panel.logic.session.started.emit(otherVersionError("0.0.1"))
    panel.logic.session.started.emit(None)  # it was updated
    assert not panel.ui.messageLabel.isVisible()
