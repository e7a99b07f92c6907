"""The parts of the Federation tab that only show: findings of the check, the journal, and taking in a release."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Buttons import offerButton
from .FederationLogic import FederationLogic
from .FederationWords import checkMark, errorWords, journalWords, layerName, localMinute, nothingLeft
from .JournalReader import JournalReader
from .Settings import RELEASES_FOLDER, readSetting
from .Tables import fillTable, fitTable, prepareTable

MOST_ROWS = 8


class RecordsPanel:
    """Drives the widgets below "What left this computer" and "New models".

    The journal is read and proved each time it comes into view, and again whenever something was added to it.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what asks the worker.
    """

    def __init__(self, ui: object, logic: FederationLogic) -> None:
        self.ui = ui
        self.logic = logic
        self.reader = JournalReader(logic.session)
        self._readOf: tuple[str, int] | None = None
        self._shown: object = None
        prepareTable(ui.fedJournalTable, 1, MOST_ROWS)
        ui.fedJournalTable.setVisible(False)
        ui.fedJournalLabel.setVisible(False)
        ui.fedJournalButton.connect("clicked(bool)", lambda _on: self.readAgain())
        ui.fedJournalCollapsibleButton.connect("contentsCollapsed(bool)", lambda _folded: self.readAgain())
        ui.fedLeftCheckBox.connect("toggled(bool)", lambda _on: self.readAgain())
        ui.fedImportButton.connect("clicked(bool)", self._onImport)
        ui.fedReleaseLabel.text = _(
            "The coordinator sends a new model as a file. It is used only if this federation's coordinator signed it."
        )
        logic.released.connect(self.told)
        self.reader.changed.connect(self.update)

    def update(self) -> None:
        """Show the journal, and say what can be done."""
        offerButton(
            self.ui.fedImportButton,
            _("Check the file the coordinator sent, and put its model where Segment looks for models."),
            self.logic.reasonToWait(),
        )
        offerButton(
            self.ui.fedJournalButton,
            _("Read the journal and prove that nothing in it was changed or removed."),
            _("The journal is being read.") if self.reader.isReading else "",
        )
        facts = self.logic.facts
        if facts is None or not facts.hasJournal:
            self._readOf = None
            self.reader.forget()
        elif not self.ui.fedJournalCollapsibleButton.collapsed:
            now = (self.logic.site, facts.journalChanged)
            if now != self._readOf:
                self._readOf = now
                self.reader.read(self.logic.site, self.ui.fedLeftCheckBox.checked)
            self._showJournal()

    def readAgain(self) -> None:
        """Read and prove the journal anew, where it is in view."""
        self._readOf = None
        self.update()

    def _showJournal(self) -> None:
        label, table, told = self.ui.fedJournalLabel, self.ui.fedJournalTable, self.reader.told
        label.setVisible(True)
        if told is None:
            error = self.reader.error
            label.text = _("Reading the journal…") if error is None else errorWords(error)
            table.setVisible(False)
            self._shown = None
        elif told is not self._shown:
            self._shown = told
            label.text = journalWords(told)
            rows = [[localMinute(row["time"]), f"{row['what']}: {row['details']}"] for row in told["rows"]]
            if nothingLeft(told, self.reader.onlyLeft):
                rows = [["", _("Nothing has left this computer.")]]
            fillTable(table, rows)
            table.setVisible(bool(rows))
            fitTable(table, MOST_ROWS)

    def cleanup(self) -> None:
        """Read no more."""
        self.reader.changed.disconnect(self.update)
        self.reader.forget()

    @staticmethod
    def fillCheck(table: object, findings: list[dict[str, Any]]) -> None:
        """Show the findings of the check: a sign, what was found, and the cure."""
        rows = []
        for finding in findings:
            name = f"{checkMark(finding)} {layerName(finding['layer'])}"
            rows.append([name, f"{finding['words']} {finding['remedy']}".strip()])
        fillTable(table, rows)

    def importFrom(self, source: str) -> None:
        """Take in a release that came as a file; into the folder where Segment looks for models."""
        self.logic.importRelease(source, readSetting(RELEASES_FOLDER) or str(Path(self.logic.site) / "releases"))

    def _onImport(self, _checked: bool = False) -> None:
        name = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Import a model"), "", "FedSeg (*.zip)")
        # PySide gives (name, filter) where PythonQt gives the name.
        name = name[0] if isinstance(name, tuple) else name
        if name:
            self.importFrom(name)

    def told(self, release: str) -> None:
        """Say that a model was taken in."""
        self.ui.fedReleaseLabel.text = _("{release} is now in Segment.").format(release=release)
