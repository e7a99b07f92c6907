"""Closing Slicer while a site takes part: it is asked, told, and asked again where it matters again."""

import json
import os

import psutil
import pytest
from FedSegSlicerLib.CloseQuestion import CloseQuestion, followRunningSite, mayRun
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.FederationTypes import SiteFacts
from FedSegSlicerLib.QtTimer import callLater
from FedSegSlicerLib.Settings import SITE_FOLDER, writeSetting
from PySide6 import QtWidgets
from scene_helpers import wait_until

import FedSegSlicer as module

pytestmark = pytest.mark.slicer


class Running:
    """What CloseQuestion knows of the logic; its site is ended only when the test says so."""

    def __init__(self, running=True):
        self.doing = ""
        self.cancels, self.stops = 0, []
        self.callLater = callLater
        self.run(running)

    def run(self, running):
        self.facts = SiteFacts("connected", "", "", "", running, 0, 0, 0.0, 0, None, {}, 0)

    def stop(self, on_done, on_failed):
        self.stops.append((on_done, on_failed))

    def cancel(self):
        self.cancels += 1


class Unsaved(QtWidgets.QMainWindow):
    """A main window that, as Slicer's, may stay open because the user wants to save something first."""

    stays = False

    def closeEvent(self, event):
        event.setAccepted(not self.stays)


@pytest.fixture
def window():
    made = Unsaved()
    made.setObjectName("qSlicerMainWindow")
    made.show()
    yield made
    if CloseQuestion._latest is not None:
        CloseQuestion._latest.cleanup()
    assert QtWidgets.QApplication.overrideCursor() is None
    made.setObjectName("closed")
    made.deleteLater()


@pytest.mark.parametrize(
    ("running", "answer", "closes", "asked"),
    [(False, "stay", True, 0), (True, "go on", True, 1), (True, "stay", False, 1), (True, "stop", False, 1)],
)
def test_closing_slicer_asks_whether_training_goes_on(window, running, answer, closes, asked):
    asks = []
    logic = Running(running)
    CloseQuestion(logic, lambda: asks.append(1) or answer)
    assert window.close() is closes
    assert len(asks) == asked
    if answer == "go on":
        window.show()  # the exit was canceled after the answer, as when unsaved data are found
        assert window.close()
        assert len(asks) == 2
    if answer == "stop":
        assert window.isVisible()
        assert window.statusBar().currentMessage() == "The site's processes are being ended; Slicer closes then."
        assert QtWidgets.QApplication.overrideCursor() is not None
        ((done, _failed),) = logic.stops
        done()
        assert not window.isVisible()
        assert len(asks) == 1


def test_it_asks_again_where_slicer_stayed_open_and_the_site_was_started_again(window):
    asks = []
    logic = Running()
    CloseQuestion(logic, lambda: asks.append(1) or "stop")
    window.stays = True
    window.close()
    logic.run(False)
    logic.stops[0][0]()
    assert window.isVisible()
    assert (window.statusBar().currentMessage(), QtWidgets.QApplication.overrideCursor()) == ("", None)
    logic.run(True)
    window.close()
    assert len(asks) == 2


def test_a_site_that_could_not_be_ended_is_told_and_asked_about_again(window):
    answers = iter(["stop", "go on"])
    logic = Running()
    CloseQuestion(logic, lambda: next(answers))
    assert not window.close()
    logic.stops[0][1](UserError("site.still-running", "The site did not stop.", "End its process."))
    assert "The site did not stop. End its process." in window.statusBar().currentMessage()
    assert window.isVisible()
    assert window.close()
    assert next(answers, None) is None


def test_what_is_being_done_is_given_up_before_the_site_is_ended(window):
    logic = Running()
    logic.doing = "Checking and copying the cases…"
    CloseQuestion(logic, lambda: "stop")
    window.close()
    assert (logic.cancels, logic.stops) == (1, [])
    logic.doing = ""
    wait_until(lambda: logic.stops)


def write_status(site, processes):
    """Write what a site's processes would have written, with this process for theirs."""
    me = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    (site / "status.json").write_text(json.dumps({**me, "processes": processes, "was_connected": True}))


def test_a_site_left_running_is_asked_about_though_the_module_is_not_opened(
    window, open_federation, invitation, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    panel = open_federation(site)
    panel.join(invitation)
    asks, logics, closed = [], [], []
    monkeypatch.setattr("FedSegSlicerLib.CloseQuestion.askInBox", lambda: asks.append(1) or "stay")
    monkeypatch.setattr(panel.logic.session, "close", lambda: closed.append(1))
    make = module.FedSegSlicerLogic().makeFederationLogic
    writeSetting(SITE_FOLDER, str(site))
    write_status(site, "ended")
    CloseQuestion._latest.cleanup()  # that of the panel
    followRunningSite(lambda: logics.append(make()) or logics[-1])
    assert logics == []  # nothing runs, so no worker is started for it
    write_status(site, "connected")
    followRunningSite(lambda: logics.append(make()) or logics[-1])
    (logic,) = logics
    wait_until(lambda: closed)  # the worker has told how the site stands, and is needed no more
    assert logic.facts.isRunning
    assert not window.close()
    assert asks == [1]
    widget = module.FedSegSlicerWidget()
    widget.setup()  # the module is opened, but not its Federation tab
    wait_until(lambda: widget.federationTab.logic.facts is not None)
    assert not window.close()
    assert asks == [1, 1]  # asked once, not by both
    widget.cleanup()
    widget.parent._qt_object.deleteLater()


def test_what_cannot_be_read_does_not_run(tmp_path):
    assert not mayRun("")
    assert not mayRun(str(tmp_path))
    for content in (b"", b"[]", b"\xff", b'{"processes": "ended"}'):
        (tmp_path / "status.json").write_bytes(content)
        assert not mayRun(str(tmp_path))
