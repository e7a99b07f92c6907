"""Asks for the file to write; what kind of file it is, is said by its name or chosen in the dialog."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .Dialogs import confirm, execute


def askFileToWrite(caption: str, suggested: str, kinds: list[str]) -> Path | None:
    """Let the user choose a file; None if nothing is to be written.

    Args:
        caption: what the dialog says above.
        suggested: a name without an ending. Qt knows only the part of an ending after its last point, and would make
            ``segmentation.seg.gz`` of ``segmentation.seg.nrrd`` where NIfTI is chosen.
        kinds: what the user can choose, as in ``"NIfTI (*.nii.gz)"``.
    """
    dialog = qt.QFileDialog(slicer.util.mainWindow(), caption)
    dialog.setAcceptMode(qt.QFileDialog.AcceptSave)
    dialog.setFileMode(qt.QFileDialog.AnyFile)
    dialog.setNameFilters(kinds)
    dialog.selectFile(suggested)
    chosen = list(dialog.selectedFiles()) if execute(dialog) else []
    kind = dialog.selectedNameFilter()
    dialog.deleteLater()
    if not chosen:
        return None
    path = withEnding(Path(chosen[0]), endingOf(kind or kinds[0]), [endingOf(each) for each in kinds])
    # The dialog has asked about the name that was typed.
    question = _("{name} exists already. Replace it?").format(name=path.name)
    isFree = str(path) == str(Path(chosen[0])) or not path.exists()
    return path if isFree or confirm(question, _("Replace")) else None


def endingOf(kind: str) -> str:
    """Return ``".nii.gz"`` of ``"NIfTI (*.nii.gz)"``."""
    return kind.rsplit("*", 1)[1].rstrip(")")


def withEnding(path: Path, ending: str, known: list[str]) -> Path:
    """Return the path with this ending, unless it has one of the known ones already.

    >>> withEnding(Path("liver"), ".nii.gz", [".seg.nrrd", ".nii.gz"]).name
    'liver.nii.gz'
    """
    if any(path.name.lower().endswith(each) for each in known):
        return path
    part = ending[ending.rindex(".") :]  # all that some dialogs add of a longer ending
    stem = path.name[: -len(part)] if path.name.lower().endswith(part) else path.name
    return path.with_name(stem + ending)
