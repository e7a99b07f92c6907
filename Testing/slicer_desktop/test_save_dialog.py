"""The dialog that asks for the file to write: the kind that is chosen there is the kind that is written."""

from pathlib import Path

import pytest
import qt
from FedSegSlicerLib import SaveDialog
from FedSegSlicerLib.SaveDialog import askFileToWrite, withEnding

pytestmark = pytest.mark.slicer

KINDS = ["Slicer (*.seg.nrrd)", "NIfTI (*.nii.gz)", "NRRD (*.nrrd)", "DICOM SEG (*.dcm)"]
ENDINGS = [".seg.nrrd", ".nii.gz", ".nrrd", ".dcm"]


def asked(folder: Path, kind: int, name: str | None = None) -> Path | None:
    """Choose a kind, and a name if one is given, in the dialog that is shown, and accept it."""
    from PySide6 import QtWidgets

    def choose() -> None:
        dialog = QtWidgets.QApplication.activeModalWidget()
        dialog.setDirectory(str(folder))
        kinds = dialog.findChild(QtWidgets.QComboBox, "fileTypeCombo")
        kinds.setCurrentIndex(kind)
        kinds.activated.emit(kind)
        if name is not None:
            dialog.findChild(QtWidgets.QLineEdit, "fileNameEdit").setText(name)
        dialog.accept()

    qt.QTimer.singleShot(200, choose)
    return askFileToWrite("Export", "segmentation", KINDS)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_the_kind_that_is_chosen_is_the_files_ending(tmp_path, kind):
    assert asked(tmp_path, kind) == tmp_path / f"segmentation{ENDINGS[kind]}"


@pytest.mark.parametrize(("name", "expected"), [
    ("mine", "mine.nii.gz"), ("mine.nii.gz", "mine.nii.gz"), ("mine.nrrd", "mine.nrrd"),
    ("mine.v2", "mine.v2.nii.gz"), ("mine.gz", "mine.nii.gz"),
])  # fmt: skip
def test_a_name_with_an_ending_keeps_it(tmp_path, name, expected):
    assert withEnding(tmp_path / name, ".nii.gz", ENDINGS) == tmp_path / expected
    assert asked(tmp_path, 1, name) == tmp_path / expected


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path, monkeypatch):
    (tmp_path / "mine.nii.gz").touch()
    questions = []
    for answer in (False, True):
        monkeypatch.setattr(
            SaveDialog, "confirm", lambda words, _doing, answer=answer: questions.append(words) or answer
        )
        assert asked(tmp_path, 1, "mine") == (tmp_path / "mine.nii.gz" if answer else None)
    assert len(questions) == 2
    assert "mine.nii.gz" in questions[0]


def test_nothing_chosen_writes_nothing():
    from PySide6 import QtWidgets

    qt.QTimer.singleShot(200, lambda: QtWidgets.QApplication.activeModalWidget().reject())
    assert askFileToWrite("Export", "segmentation", KINDS) is None
