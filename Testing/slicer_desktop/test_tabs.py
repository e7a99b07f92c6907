"""The tabs together: each is as high as it needs to be, and none says what is no longer so."""

import pytest
import slicer
from FedSegSlicerLib.Errors import UserError

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
