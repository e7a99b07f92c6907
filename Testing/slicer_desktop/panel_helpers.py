"""The module's panel, opened as Slicer opens it, and what tests of its Segment tab share."""

import gc
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import qt
import slicer
from FedSegSlicerLib.QtTimer import callLater
from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.SegmentationResult import ROLE, ResultRow, findResult
from FedSegSlicerLib.SegmentLogic import State
from FedSegSlicerLib.SegmentTypes import Outcome
from FedSegSlicerLib.Settings import RELEASES_FOLDER, RUNTIME, writeSetting
from FedSegSlicerLib.WorkerSession import WorkerSession
from scene_helpers import load_volume, neutral_paths, wait_until

import FedSegSlicer as module


class Panel:
    """The module's widget, opened as Slicer opens it."""

    def __init__(self):
        self.widget = module.FedSegSlicerWidget()
        self.widget.setup()
        self.widget.enter()
        self.widget.parent._qt_object.isEntered = True
        self.widget.parent._qt_object.resize(420, 680)
        self.widget.parent.show()
        self.ui = self.widget.ui
        self.logic = self.widget.segmentTab.logic

    @property
    def parameters(self):
        return self.widget._parameters

    def picture(self, path):
        slicer.app.processEvents()
        top = self.widget.parent._qt_object
        with neutral_paths(top):
            assert top.grab().save(str(path))

    def ready(self):
        wait_until(lambda: self.ui.segmentButton.enabled)

    def idle(self):
        wait_until(lambda: self.logic.state is State.IDLE)


def answering(text):
    """Click that button of the question about to be asked, which Return would cancel."""
    from PySide6 import QtWidgets

    def answer():
        box = QtWidgets.QApplication.activeModalWidget()
        buttons = {button.text().replace("&", ""): button for button in box.buttons()}
        assert box.defaultButton() is buttons["Cancel"]
        buttons[text].click()

    qt.QTimer.singleShot(200, answer)


def segmented(open_panel, patients):
    """Return the module's panel after a CT was segmented in it, and the volume."""
    volume = load_volume(patients["CT"], "CT abdomen")
    panel = open_panel()
    panel.ready()
    panel.ui.segmentButton.click()
    panel.idle()
    return panel, volume


class KeptSession(WorkerSession):
    """A session whose worker outlives panels and files of tests: starting torch anew is what would take the time."""

    def close(self):
        pass


@pytest.fixture(scope="session")
def kept_session():
    locator = RuntimeLocator(lambda: sys.executable, slicer.util.startupEnvironment)
    session = KeptSession(locator, QtWorkerProcess, callLater)
    yield session
    WorkerSession.close(session)


@pytest.fixture
def open_panel(releases, kept_session, monkeypatch):
    panels = []

    def open_(folder=releases, runtime=None):
        """Open the module; with a ``runtime`` it has a worker of its own."""
        if runtime is None:
            monkeypatch.setattr(module.FedSegSlicerLogic, "makeSession", lambda self: kept_session)
        writeSetting(RELEASES_FOLDER, str(folder))
        writeSetting(RUNTIME, runtime or "")
        panels.append(Panel())
        return panels[-1]

    yield open_
    for panel in panels:
        panel.widget.cleanup()
        panel.widget.parent._qt_object.deleteLater()


def table_of(ui):
    return [
        (ui.resultTable.item(row, 0).text(), ui.resultTable.item(row, 1).text())
        for row in range(ui.resultTable.rowCount)
    ]


LONGEST_BLOCK = 0.25
"""Seconds for which the GUI thread may wait for something other than a processor between two ticks; its short waits for
a thread (``Background.onThread``) and for the next event are far below."""


class Ticks:
    """A timer of the GUI thread that notes how long it was held up, computed and was blocked between two ticks.

    ``gaps`` are seconds of the clock and grow when other programs keep the machine busy; ``busy`` are seconds for which
    this thread itself used a processor, whoever else wanted it. ``blocked`` are seconds for which it neither used nor
    wanted one: it slept, or waited for a process, a file or a lock. They do not grow on a busy machine, as Linux's
    scheduler counts for how long a thread waits for its turn, and the time that a host takes from a virtual machine;
    other systems do not tell, and there ``blocked`` stays empty.

    Python's garbage collector looks in this time only at what is made in it: the tests' interpreter also holds PyTorch,
    Flower and what other tests left, and going through those half a million objects takes 0.2 seconds by itself.
    """

    def __init__(self, every_ms):
        self.timer = qt.QTimer()
        self.timer.timeout.connect(lambda *_: self._tick())
        self.every_ms = every_ms

    def begin(self):
        self.gaps, self.busy, self.blocked = [], [], []
        gc.freeze()
        self._last = time.monotonic(), time.thread_time(), _kept_waiting()
        self.timer.start(self.every_ms)

    def end(self):
        """Stop; fails if the GUI thread was blocked meanwhile."""
        self._tick()
        self.timer.stop()
        gc.unfreeze()
        longest = max(self.blocked, default=0.0)
        assert longest < LONGEST_BLOCK, f"the GUI thread was blocked for {longest:.2f} s"

    def _tick(self):
        now = time.monotonic(), time.thread_time(), _kept_waiting()
        gap, busy = now[0] - self._last[0], now[1] - self._last[1]
        self.gaps.append(gap)
        self.busy.append(busy)
        if now[2] is not None:
            self.blocked.append(gap - busy - (now[2] - self._last[2]))
        self._last = now


def _kept_waiting():
    """Return for how many seconds this thread has wanted a processor and had none so far, None where nobody counts."""
    try:
        _used, waited, _turns = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
        stolen = Path("/proc/stat").read_text().split(maxsplit=9)[8]
    except OSError:
        return None
    return int(waited) / 1e9 + int(stolen) / os.sysconf("SC_CLK_TCK")


def outcome_to_check(volume):
    """Return a result with a doubt, as the worker would tell it."""
    rows = (ResultRow("liver", (221, 130, 101), 1400.0, "Segment_1", 61.4),
            ResultRow("spleen", (157, 108, 162), 0.0, "Segment_4", None, ("not found",)))  # fmt: skip
    note = "Memory is short; smaller tiles are used, which may cost a little accuracy."
    node = findResult(volume) or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetNodeReferenceID(ROLE, volume.GetID())
    return Outcome(node, rows, "tiny-CT-v2", "CT", "cpu", 3.0, (note,), "HU", place=volume.GetID(), isTrusted=True)


def show_result(panel, outcome, volume):
    """Show ``outcome`` as what was found in the volume."""
    result = panel.widget.segmentTab.result
    result.keep(outcome)
    assert result.choose(volume)


def check_texts(top):
    """Every visible label and button below ``top`` has the room that its text needs."""
    from PySide6 import QtWidgets

    slicer.app.processEvents()
    for label in top.findChildren(QtWidgets.QLabel):
        if label.isVisible() and label.text():
            needed = label.heightForWidth(label.width()) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, label.objectName()
            assert label.wordWrap() or label.width() >= label.sizeHint().width(), label.objectName()
    for button in top.findChildren(QtWidgets.QAbstractButton):
        if button.isVisible() and (button.text() or isinstance(button, QtWidgets.QPushButton)):
            assert button.width() >= button.sizeHint().width(), button.objectName()


def check_nothing_is_clipped(panel):
    """Every visible text has the room it needs, and so has the table of the result."""
    check_texts(panel.widget.parent._qt_object)
    table = panel.ui.resultTable
    if table.isVisible():
        assert not table._qt_object.verticalScrollBar().isVisible()
        assert table._qt_object.sizeHintForColumn(1) <= table._qt_object.columnWidth(1)
        last = table._qt_object.visualItemRect(table._qt_object.item(table.rowCount - 1, 0))
        assert last.bottom() <= table._qt_object.viewport().height()
        below = panel.ui.resultLabel._qt_object.geometry()
        assert not table._qt_object.geometry().intersects(below)
