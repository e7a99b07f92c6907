"""The module opened on its See tab, as tests click through it."""

import numpy as np
import pytest
import qt
from FedSegSlicerLib.SeeTypes import SeeState
from panel_helpers import check_texts
from scene_helpers import wait_until

import FedSegSlicer as module


class Panel:
    """The module's widget, opened as Slicer opens it, on the See tab."""

    def __init__(self):
        self.widget = module.FedSegSlicerWidget()
        self.widget.setup()
        self.widget.enter()
        self.own = self.widget.parent._qt_object
        self.own.isEntered = True
        self.own.resize(440, 900)
        self.widget.parent.show()
        self.ui = self.widget.ui
        self.ui.tabWidget.setCurrentWidget(self.ui.seeTab)
        self.tab = self.widget.seeTab
        self.logic = self.tab.logic

    @property
    def parameters(self):
        return self.widget._parameters

    def whole(self):
        """Wait until every sample is there as a whole and drawn."""
        wait_until(lambda: self.logic.state is SeeState.IDLE and self.logic.scene is not None)
        self.drawn()

    def drawn(self):
        wait_until(lambda: self.tab._grid._drawing is None or self.tab._grid._drawing._stopped)

    def show(self):
        self.ui.seeShowButton.click()
        self.whole()

    def titles(self):
        pictures = self.ui.seePictureList
        return [pictures.item(row).text() for row in range(pictures.count)]

    def icon(self, row):
        """Return what picture ``row`` shows as uint8 (rows, columns, RGB)."""
        image = self.ui.seePictureList.item(row).icon().pixmap(qt.QSize(240, 1000)).toImage()
        image = image.convertToFormat(qt.QImage.Format.Format_RGB888)
        rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def check_see_is_not_clipped(panel):
    """Every visible text of the See tab has the room it needs, and so have its pictures."""
    check_texts(panel.own)
    pictures = panel.ui.seePictureList
    if pictures.isVisible():
        assert not pictures._qt_object.verticalScrollBar().isVisible()
        assert not pictures._qt_object.geometry().intersects(panel.ui.seeSliceSlider._qt_object.geometry())
        last = pictures._qt_object.visualItemRect(pictures._qt_object.item(pictures.count - 1))
        assert last.bottom() <= pictures._qt_object.viewport().height()


@pytest.fixture
def open_see_panel(kept_session, monkeypatch):
    panels = []

    def open_():
        monkeypatch.setattr(module.FedSegSlicerLogic, "makeSession", lambda self: kept_session)
        panels.append(Panel())
        return panels[-1]

    yield open_
    for panel in panels:
        panel.widget.cleanup()
        panel.own.deleteLater()
