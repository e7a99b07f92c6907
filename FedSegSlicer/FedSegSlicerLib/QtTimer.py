"""Calls that come later, by Slicer's event loop."""

from collections.abc import Callable

import qt
import slicer


def callLater(milliseconds: int, function: Callable[[], None]) -> None:
    """Call ``function`` once, after this time, and forget it (see CallLater).

    ``qt.QTimer.singleShot`` is not used, because Slicer's own keeps its timer until Slicer ends, and with it whatever
    the function refers to: the voxels of every volume that was handed over.
    """
    timer = qt.QTimer(slicer.app.moduleManager())  # a parent, so that Python does not delete it before its time
    timer.setSingleShot(True)

    def call() -> None:
        timer.deleteLater()
        function()

    timer.connect("timeout()", call)
    timer.start(milliseconds)
