"""The tabs: each is as high as it needs to be, whatever the others hold."""

import pytest
import slicer

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
