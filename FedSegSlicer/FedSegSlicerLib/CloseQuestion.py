"""Closing Slicer while the site takes part: asks whether that goes on in the background."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from .Dialogs import execute
from .Errors import UserError
from .FederationLogic import FederationLogic
from .Settings import SITE_FOLDER, readSetting

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_MS = 100
"""How often it is looked whether what is being done has been given up."""


class CloseQuestion:
    """Looks at the main window's closing; a new one takes the place of the one before.

    Args:
        logic: knows whether the site's processes run, and ends them. Where the site that was last used may be running,
            it is asked at once, since nobody may open the Federation tab in this session.
        ask: shows a question and returns ``"go on"``, ``"stop"`` or ``"stay"``; None: in a message box.
    """

    _latest: "CloseQuestion | None" = None

    def __init__(self, logic: FederationLogic, ask: "Callable[[], str] | None" = None) -> None:
        if CloseQuestion._latest is not None:
            CloseQuestion._latest.cleanup()
        CloseQuestion._latest = self
        self.logic = logic
        self._ask = ask or askInBox
        self._isStopping = False
        self._window = slicer.util.mainWindow()
        self._filter = None
        if self._window is not None:
            self._filter = _makeFilter(self.mayClose)
            self._window.installEventFilter(self._filter)
        if mayRun(readSetting(SITE_FOLDER)):
            logic.setSite(readSetting(SITE_FOLDER))

    def mayClose(self) -> bool:
        """Return whether the window may close now; where the site is ended first, it is closed afterwards."""
        facts = self.logic.facts
        if self._isStopping or facts is None or not facts.isRunning:
            return True  # also while the site is being ended: closing again does not wait for it
        answer = self._ask()
        if answer == "stop":
            self._isStopping = True
            slicer.util.showStatusMessage(_("The site's processes are being ended; Slicer closes then."))
            qt.QApplication.setOverrideCursor(qt.Qt.BusyCursor)
            self._stop()
        return answer == "go on"

    def cleanup(self) -> None:
        """Look no more."""
        if self._filter is not None:
            self._window.removeEventFilter(self._filter)
            self._filter = None
        self._endStopping()
        if CloseQuestion._latest is self:
            CloseQuestion._latest = None

    def _stop(self) -> None:
        """End the site; what is being done for it is given up first, since the worker does one thing at a time."""
        if self._isStopping and self.logic.doing:
            self.logic.cancel()
            self.logic.callLater(LOOK_EVERY_MS, self._stop)
        elif self._isStopping:
            self.logic.stop(self._onStopped, self._onNotStopped)

    def _onStopped(self) -> None:
        if self._window is not None:
            self._window.close()
        self._endStopping()  # it may have stayed open, for data that are not saved

    def _onNotStopped(self, error: UserError) -> None:
        self._endStopping()
        words = _("The site could not be ended: {cause} {remedy}")
        slicer.util.showStatusMessage(words.format(cause=error.cause, remedy=error.remedy))

    def _endStopping(self) -> None:
        if self._isStopping:
            self._isStopping = False
            qt.QApplication.restoreOverrideCursor()
            slicer.util.showStatusMessage("")


def followRunningSite(makeLogic: "Callable[[], FederationLogic]") -> None:
    """Ask at closing also where the module is not opened, for a site that goes on since an earlier session of Slicer.

    Args:
        makeLogic: makes what asks the worker; not called where no site was left running.
    """
    if slicer.util.mainWindow() is None or not mayRun(readSetting(SITE_FOLDER)):
        return
    logic = makeLogic()

    def rest() -> None:
        """End the worker once it has told how the site stands."""
        if logic.facts is not None and not logic.doing:
            logic.session.close()

    logic.changed.connect(lambda: logic.callLater(0, rest))
    CloseQuestion(logic)


def mayRun(site: str) -> bool:
    """Return whether a site's status file says that it runs; only the worker can tell whether that is still so."""
    try:
        told = json.loads((Path(site) / "status.json").read_bytes()) if site else None
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("processes") not in (None, "ended")


def askInBox() -> str:
    """Ask in a message box."""
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setIcon(qt.QMessageBox.Question)
    box.setWindowTitle(_("FedSegSlicer"))
    box.setText(_("This computer takes part in a federation. Shall that go on in the background?"))
    box.setInformativeText(_("Slicer finds it again on its next start."))
    goOn = box.addButton(_("Go on in the background"), qt.QMessageBox.AcceptRole)
    stop = box.addButton(_("Stop, then close"), qt.QMessageBox.DestructiveRole)
    box.addButton(qt.QMessageBox.Cancel)
    box.setDefaultButton(goOn)
    execute(box)
    clicked = box.clickedButton()
    return "go on" if clicked == goOn else "stop" if clicked == stop else "stay"


def _makeFilter(mayClose: "Callable[[], bool]") -> object:
    """Return an object that asks before a window closes; a class of Qt's cannot be made before there is a desktop."""

    class Filter(qt.QObject):
        def eventFilter(self, _watched: object, event: object) -> bool:
            if event.type() == qt.QEvent.Close and not mayClose():
                event.ignore()
                return True
            return False

    return Filter()
