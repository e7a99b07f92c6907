"""Closing Slicer while the site takes part: asks whether that goes on in the background."""

from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from .FederationLogic import FederationLogic

if TYPE_CHECKING:
    from collections.abc import Callable


class CloseQuestion:
    """Looks at the main window's closing.

    Args:
        logic: knows whether the site's processes run, and ends them.
        ask: shows a question and returns ``"go on"``, ``"stop"`` or ``"stay"``; None: in a message box.
    """

    def __init__(self, logic: FederationLogic, ask: "Callable[[], str] | None" = None) -> None:
        self.logic = logic
        self._ask = ask or askInBox
        self._isStopping = False
        self._window = slicer.util.mainWindow()
        self._filter = None
        if self._window is not None:
            self._filter = _makeFilter(self.mayClose)
            self._window.installEventFilter(self._filter)

    def mayClose(self) -> bool:
        """Return whether the window may close now; where the site is ended first, it is closed afterwards."""
        facts = self.logic.facts
        if self._isStopping or facts is None or not facts.isRunning:
            return True
        answer = self._ask()
        if answer == "stop":
            self._isStopping = True  # if the site cannot be ended, closing again closes all the same
            self.logic.stop(self._close)
        return answer == "go on"

    def cleanup(self) -> None:
        """Look no more."""
        if self._filter is not None:
            self._window.removeEventFilter(self._filter)
            self._filter = None

    def _close(self) -> None:
        if self._window is not None:
            self._window.close()


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
    exec_ = getattr(box, "exec_", None) or box.exec
    exec_()
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
