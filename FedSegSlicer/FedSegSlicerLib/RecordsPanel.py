"""The parts of the Federation tab that only show: findings of the check, the journal, and taking in a release."""

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .FederationLogic import FederationLogic
from .FederationWords import checkMark, journalWords, layerName
from .Settings import RELEASES_FOLDER, readSetting
from .Tables import fillTable, fitTable, prepareTable

MOST_ROWS = 8
LEFT = ("left", "introduced", "refused")
"""Kinds of entries that say what left the computer, or would have."""


class RecordsPanel:
    """Drives the widgets below "What left this computer" and "New models".

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what asks the worker.
    """

    def __init__(self, ui: object, logic: FederationLogic) -> None:
        self.ui = ui
        self.logic = logic
        self._shown: tuple[object, bool] | None = None
        prepareTable(ui.fedJournalTable, 1, MOST_ROWS)
        ui.fedJournalTable.setVisible(False)
        ui.fedJournalLabel.setVisible(False)
        ui.fedJournalButton.connect("clicked(bool)", lambda _on: self.logic.readJournal())
        ui.fedJournalCollapsibleButton.connect("contentsCollapsed(bool)", self._onFolded)
        ui.fedLeftCheckBox.connect("toggled(bool)", lambda _on: self.update())
        ui.fedImportButton.connect("clicked(bool)", self._onImport)
        ui.fedReleaseLabel.text = _(
            "The coordinator sends a new model as a file. It is used only if this federation's coordinator signed it."
        )
        logic.released.connect(self.told)

    def update(self) -> None:
        """Show the journal, and say what can be done."""
        busy = bool(self.logic.doing)
        self.ui.fedJournalButton.enabled = not busy
        self.ui.fedImportButton.enabled = not busy
        told, onlyLeft = self.logic.journal, self.ui.fedLeftCheckBox.checked
        if self.ui.fedJournalCollapsibleButton.collapsed:
            return
        self.ui.fedJournalLabel.setVisible(told is not None)
        self.ui.fedJournalTable.setVisible(told is not None)
        if told is None or (told, onlyLeft) == self._shown:
            return
        self._shown = (told, onlyLeft)
        self.ui.fedJournalLabel.text = journalWords(told)
        entries = [row for row in told["rows"] if not onlyLeft or row["kind"] in LEFT]
        rows = [[_minute(row["time"]), f"{row['what']}: {row['details']}"] for row in entries]
        fillTable(self.ui.fedJournalTable, rows or [["", _("Nothing has left this computer.")]])
        fitTable(self.ui.fedJournalTable, MOST_ROWS)

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

    def _onFolded(self, folded: bool) -> None:
        if not folded and self.logic.journal is None and not self.logic.doing:
            self.logic.readJournal()
        self.update()

    def _onImport(self, _checked: bool = False) -> None:
        name = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Import a model"), "", "FedSeg (*.zip)")
        # PySide gives (name, filter) where PythonQt gives the name.
        name = name[0] if isinstance(name, tuple) else name
        if name:
            self.importFrom(name)

    def told(self, release: str) -> None:
        """Say that a model was taken in."""
        self.ui.fedReleaseLabel.text = _("{release} is now in Segment.").format(release=release)


def _minute(time: str) -> str:
    """Return an entry's time (UTC) to the minute."""
    return time.replace("T", " ")[:16]
