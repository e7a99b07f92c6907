"""Asks before something that cannot be undone: the button says what is done, and Return cancels."""

import qt
import slicer
from slicer.i18n import tr as _


def confirm(question: str, doing: str) -> bool:
    """Return whether the user wants it; Slicer's own question would be answered with Yes by Return.

    Args:
        question: what would happen.
        doing: what the button that lets it happen says, a verb.
    """
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setIcon(qt.QMessageBox.Question)
    box.setWindowTitle(_("FedSegSlicer"))
    box.setText(question)
    yes = box.addButton(doing, qt.QMessageBox.AcceptRole)
    box.setDefaultButton(box.addButton(qt.QMessageBox.Cancel))
    exec_ = getattr(box, "exec_", None) or box.exec
    exec_()
    wanted = box.clickedButton() == yes
    box.deleteLater()
    return wanted
