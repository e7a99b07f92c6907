"""Dialogs that wait for an answer."""

import qt
import slicer
from slicer.i18n import tr as _


def execute(dialog: object) -> int:
    """Show a dialog until it is answered; Qt 5 and Qt 6 call this differently."""
    return (getattr(dialog, "exec_", None) or dialog.exec)()


def confirm(question: str, doing: str) -> bool:
    """Ask before something that cannot be undone: a button says what is done, and Return cancels.

    Slicer's own question would be answered with Yes by Return.

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
    execute(box)
    wanted = box.clickedButton() == yes
    box.deleteLater()
    return wanted
