"""The part of the Segment tab that shows a result: volumes, what to check, Undo."""

import html
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from .Background import onThread
from .Buttons import offerButton
from .Dialogs import confirm
from .Errors import UserError
from .QtTimer import callLater
from .ResultImport import ijkToRasOf
from .ResultNumbers import Measured, areSameSizes, editedRows, measure, sharedMapsOf, stateOf
from .ResultPlace import ResultPlace, placeOf
from .ResultRecord import recorded
from .SaveDialog import askFileToWrite
from .SegmentationResult import RECORD, ResultRow
from .SegmentExport import dicomFilesOf
from .SegmentLogic import SegmentLogic
from .SegmentTypes import Outcome
from .Tables import keepHeight
from .VolumeExchange import takeSnapshot

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

COLOR_SIDE = 14
ROW_MARGIN = 8
MOST_ROWS = 16
"""Structures shown at once; more are scrolled, also with the arrow keys."""
LEAST_ML = 0.001
CHECK_MARK = "\u26a0"


class ResultPanel:
    """Drives the widgets below "Result".

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what made the result, and can take it back.
        onUndone: called after Undo.
    """

    def __init__(self, ui: object, logic: SegmentLogic, onUndone: object) -> None:
        self.ui = ui
        self.logic = logic
        self._onUndone = onUndone
        self._volume: vtkMRMLScalarVolumeNode | None = None
        self._outcome: Outcome | None = None
        self._outcomes: dict[str, Outcome] = {}
        self._records: dict[str, str | None] = {}  # what the results said of themselves then
        self._takenBack: set[str] = set()
        self._states: dict[str, object] = {}  # of the segmentations at the time they were measured
        self._measuring: object = None
        self._exportTip = ui.exportButton.toolTip
        self._prepareTable()
        self.ui.undoButton.connect("clicked(bool)", self._onUndo)
        self.ui.exportButton.connect("clicked(bool)", self._onExport)
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._volume = self._outcome = self._measuring = None
        self._key = ""
        self.ui.resultCollapsibleButton.setVisible(False)

    def keep(self, outcome: Outcome) -> None:
        """Remember what was found in a volume or a moment, to show it whenever that is chosen."""
        self._outcomes[outcome.place] = outcome
        self._records[outcome.place] = outcome.node.GetAttribute(RECORD)
        self._states[outcome.place] = stateOf(outcome.node.GetSegmentation())
        self._takenBack.discard(outcome.place)

    def choose(self, volume: "vtkMRMLScalarVolumeNode | None") -> bool:
        """Show what was found in a volume, or in the moment it shows now, and return whether anything is known."""
        place = placeOf(volume) if volume is not None else None
        outcome = self._known(place) if place is not None else None
        if outcome is None:
            self.clear()
            return False
        self._fill(outcome, volume)
        self._measureIfEdited()
        return True

    def refresh(self, volume: "vtkMRMLScalarVolumeNode | None") -> None:
        """Look whether what is shown was edited meanwhile, or made by a script, as when the module is entered.

        Args:
            volume: whose result is to be shown where none is.
        """
        if self._outcome is not None:
            self.choose(self._volume)
        elif not self.logic.isBusy:
            self.choose(volume)

    def _known(self, place: ResultPlace) -> Outcome | None:
        """Return what is known of the result there: from this session, else what it says of itself."""
        node, key = place.result(), place.key()
        if node is None:
            return None
        record = node.GetAttribute(RECORD)
        isNew = key not in self._outcomes or (key not in self._takenBack and record != self._records[key])
        loaded = recorded(node, key) if isNew else None
        if loaded is not None:
            self._outcomes[key], self._records[key] = loaded, record
            self._states.pop(key, None)
        return self._outcomes.get(key)

    def forget(self) -> None:
        """Forget everything, as when the scene is closed."""
        self._outcomes.clear()
        self._records.clear()
        self._states.clear()
        self._takenBack.clear()
        self.clear()

    def _fill(self, outcome: Outcome, volume: "vtkMRMLScalarVolumeNode") -> None:
        if outcome.place != self._key:
            self._measuring = None
        self._outcome, self._volume, self._key = outcome, volume, outcome.place
        self.ui.resultTable.setHorizontalHeaderItem(2, qt.QTableWidgetItem(_meanCaption(outcome.intensityUnit)))
        self._fillTable(outcome.rows)
        self.ui.checkLabel.text = checkWords(outcome.rows, outcome.checks)
        self.ui.checkLabel.setVisible(bool(self.ui.checkLabel.text))
        self._sayHow()
        self.ui.resultCollapsibleButton.setVisible(True)
        self.update()

    def update(self) -> None:
        """Say what can be done with the result now."""
        possible = self._outcome is not None and self.logic.canUndo(self._volume)
        self.ui.undoButton.enabled = possible
        self.ui.undoButton.text = _("Redo") if self._isTakenBack() and possible else _("Undo")
        for widget in (self.ui.resultTable, self.ui.checkLabel):
            widget.enabled = not self._isTakenBack() and self._measuring is None

    def _measureIfEdited(self) -> None:
        """Measure what is shown where it is no longer what was measured; its table is dimmed meanwhile."""
        volume, key, outcome = self._volume, self._key, self._outcome
        segmentation = outcome.node.GetSegmentation()
        state = stateOf(segmentation)
        if self._isTakenBack() or state in (self._states.get(key), self._measuring):
            return
        isFirst, self._measuring = key not in self._states, state

        def show(rows: tuple[ResultRow, ...], words: str) -> None:
            if (self._key, self._measuring) == (key, state):
                self._states[key], self._measuring = state, None
                self._outcomes[key] = replace(outcome, rows=rows, edited=words)
                self.choose(volume)

        def done(found: dict[str, Measured]) -> None:
            rows = editedRows(segmentation, found, outcome.rows)
            isAsFound = isFirst and areSameSizes(rows, outcome.rows)
            show(rows, "" if isAsFound else _("Edited since, and measured again."))

        def failed(error: UserError) -> None:
            show(outcome.rows, f"{error.cause} {error.remedy}")

        try:
            maps, snapshot = sharedMapsOf(segmentation), takeSnapshot(volume)
        except (ValueError, AttributeError) as error:  # it has no label maps, or its image could not be loaded
            failed(_unmeasurable(error))
            return
        image, ijkToRas = snapshot.array, ijkToRasOf(volume)
        self.update()
        self._sayHow()
        onThread(callLater, lambda: measure(maps, image, ijkToRas), done, failed, _unmeasurable)

    def _onUndo(self, _checked: bool = False) -> None:
        volume, key = self._volume, self._key
        question = _("Remove this result with all that was edited in it? It cannot be brought back.")
        if self.logic.undoRemoves(volume) and self._isEdited() and not confirm(question, _("Remove")):
            return
        self.logic.undo(volume)
        if not self.logic.canUndo(volume):
            self._outcomes.pop(key, None)
            self.clear()  # there was nothing before
        else:
            self._takenBack ^= {key}
            self.update()
            self._sayHow()
        self._onUndone()

    def _isEdited(self) -> bool:
        """Return whether somebody has changed what is shown since it was made, measured again or not."""
        return bool(self._outcome.edited) or stateOf(self._outcome.node.GetSegmentation()) != self._states.get(
            self._key
        )

    def _isTakenBack(self) -> bool:
        return self._key in self._takenBack

    def _sayHow(self) -> None:
        if self._isTakenBack():
            words = _("What was there before is back. Redo shows this result again.")
        elif self._measuring is not None:
            isKnown = self._key in self._states
            words = _("Edited since: it is being measured again.") if isKnown else _("It is being measured.")
        else:
            words = resultWords(self._outcome)
        self.ui.resultLabel.text = words

    def _onExport(self, _checked: bool = False) -> None:
        kinds = ["Slicer (*.seg.nrrd)", "NIfTI (*.nii.gz)", "NRRD (*.nrrd)"]
        if dicomFilesOf(self._volume):
            kinds.append("DICOM SEG (*.dcm)")
        path = askFileToWrite(_("Export the segmentation"), "segmentation", kinds)
        if path is not None:
            self.exportTo(path)

    def exportTo(self, path: Path) -> None:
        """Write the result to a file and say how that went."""

        def told(words: str) -> None:
            offerButton(self.ui.exportButton, self._exportTip)
            self.ui.resultLabel.text = words

        # Where the worker segments other volumes it comes to this after the present one.
        waits = _("Writing {name}…").format(name=path.name)
        offerButton(self.ui.exportButton, self._exportTip, waits)
        self.ui.resultLabel.text = waits
        self.logic.export(
            self._volume,
            path,
            lambda: told(_("Written to {name}.").format(name=path.name)),
            lambda error: told(f"{error.cause} {error.remedy}"),
        )

    def _prepareTable(self) -> None:
        table = self.ui.resultTable
        keepHeight(table)
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setWordWrap(False)
        rows = table.verticalHeader()
        rows.setSectionResizeMode(qt.QHeaderView.Fixed)
        rows.setDefaultSectionSize(table.fontMetrics().height() + ROW_MARGIN)

    def _fillTable(self, rows: tuple[ResultRow, ...]) -> None:
        table = self.ui.resultTable
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            self._fillRow(number, row)
        # As high as its rows; hints, because nothing has its size yet while it is hidden.
        header = table.horizontalHeader().sizeHint.height()
        height = min(len(rows), MOST_ROWS) * table.verticalHeader().defaultSectionSize
        table.setFixedHeight(header + height + 2 * table.frameWidth)

    def _fillRow(self, number: int, row: ResultRow) -> None:
        color = qt.QPixmap(COLOR_SIDE, COLOR_SIDE)
        color.fill(qt.QColor(*row.color))
        mark = f"  {CHECK_MARK}" if row.checks else ""
        name = qt.QTableWidgetItem(row.name[:1].upper() + row.name[1:] + mark)
        name.setIcon(qt.QIcon(color))
        volume = qt.QTableWidgetItem(measureWords(row))
        mean = qt.QTableWidgetItem(meanWords(row.meanIntensity))
        for column, item in enumerate((name, volume, mean)):
            item.setToolTip(_("Please check: {reason}.").format(reason="; ".join(row.checks)) if row.checks else "")
            if column:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self.ui.resultTable.setItem(number, column, item)


def meanWords(mean: float | None) -> str:
    """Return a mean intensity; a small one, as maps of diffusion and normalized images have, with its digits.

    >>> meanWords(61.2), meanWords(0.001234), meanWords(None)
    ('61', '0.00123', '')
    """
    if mean is None:
        return ""
    return f"{mean:,.0f}" if abs(mean) >= 10 else f"{mean:.3g}"


def volumeWords(milliliters: float) -> str:
    """Return a structure's volume; that of a small lesion with two digits, and not as nothing.

    >>> volumeWords(1432.06), volumeWords(0.034)
    ('1,432.1', '0.034')
    """
    if milliliters <= 0:
        return _("not found")
    if milliliters < LEAST_ML:
        return _("< {least}").format(least=LEAST_ML)
    return f"{milliliters:,.1f}" if milliliters >= 1 else f"{milliliters:.2g}"


def _unmeasurable(_error: Exception) -> UserError:
    return UserError(
        "result.not-measured",
        _("The result was edited since and cannot be measured: the table has the model's numbers."),
        _("Measure it with the module Segment Statistics."),
    )


def measureWords(row: ResultRow) -> str:
    """Return a structure's volume in milliliters, or in a single slice its area, as the table has it."""
    if row.volumeMl is not None:
        return volumeWords(row.volumeMl)
    if not row.voxels:
        return _("not found")
    return f"{row.voxels:,} px" if row.areaMm2 is None else f"{row.areaMm2:,.0f} mm²"


def _meanCaption(unit: str) -> str:
    return _("Mean ({unit})").format(unit=unit) if unit else _("Mean")


def checkWords(rows: tuple[ResultRow, ...], checks: tuple[str, ...] = ()) -> str:
    """Return what to look at and why, as rich text; ``""`` if there is no particular reason.

    Args:
        rows: the structures.
        checks: why the whole result needs a look.
    """
    byReason: dict[str, list[str]] = {}
    for row in rows:
        for reason in row.checks:
            byReason.setdefault(reason, []).append(row.name)
    lines = [_("<b>Everything</b>: {reason}.").format(reason=html.escape(reason)) for reason in checks]
    lines += [
        _("<b>{names}</b>: {reason}.").format(names=html.escape(", ".join(names)), reason=html.escape(reason))
        for reason, names in byReason.items()
    ]
    return "<br>".join([_("{mark} Please check").format(mark=CHECK_MARK), *lines]) if lines else ""


def resultWords(outcome: Outcome) -> str:
    """Return by what, where and how a result was made, and what had to be done differently."""
    words = [
        _("{release} as {modality}, {seconds:.1f} s on {device}.").format(
            release=outcome.release,
            modality=outcome.modality,
            seconds=outcome.seconds,
            device=_("the graphics card") if outcome.device.startswith("cuda") else _("the processor"),
        ),
        *([outcome.edited] if outcome.edited else []),
        *outcome.notes,
        *_signerWords(outcome),
        _("Not a medical device: check the result before you use it."),
    ]
    return " ".join(words)


def _signerWords(outcome: Outcome) -> list[str]:
    if outcome.isLoaded:
        return [_("This is what the scene says; who signed the model was not checked again.")]
    return [] if outcome.isTrusted else [_("Signer unknown: nobody has said here whose model this is.")]
