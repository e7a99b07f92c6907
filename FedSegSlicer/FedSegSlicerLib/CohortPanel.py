"""The part of the Federation tab for cases: what is in the site's store, consent, adding volumes of the scene."""

import datetime as dt
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Buttons import offerButton
from .Dialogs import confirm
from .FederationLogic import FederationLogic
from .FederationTypes import NOT_ANNOTATED, CaseOffer
from .FederationWords import cohortWords, consentWords, findingsWords
from .Parameters import FedSegSlicerParameterNode, ModalityChoice
from .Tables import fillTable, fitTable, prepareTable

MOST_ROWS = 5
PICTURE = 72
"""Side of a case's picture."""

DAY = "yyyy-MM-dd"


class CohortPanel:
    """Drives the widgets below "Cases" and "Add a case".

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what asks the worker.
    """

    def __init__(self, ui: object, logic: FederationLogic) -> None:
        self.ui = ui
        self.logic = logic
        self._parameters: FedSegSlicerParameterNode | None = None
        self._shown: dict[str, Any] | None = None
        self._named: tuple | None = None
        self._choices: dict[str, object] = {}
        self._values: dict[str, list[Any]] = {}  # what is sent of a structure, by its choice's index
        self._stored: dict[str, Any] = {}  # what the site's store knows from earlier cases
        self._checked: tuple | None = None
        self._today = today()
        self._showDay(self._today)
        self._folderTip = ui.fedFolderButton.toolTip
        prepareTable(ui.fedCaseTable, 0, MOST_ROWS)
        prepareTable(ui.fedNamingTable, 1, MOST_ROWS)
        ui.fedCaseTable.setIconSize(qt.QSize(PICTURE, PICTURE))
        ui.fedAddCollapsibleButton.collapsed = True
        ui.fedAddCollapsibleButton.connect("contentsCollapsed(bool)", lambda _folded: self.update())
        ui.fedCaseTable.connect("itemSelectionChanged()", self.update)
        ui.fedConsentLineEdit.connect("textChanged(QString)", lambda _text: self.update())
        ui.fedPatientLineEdit.connect("textChanged(QString)", lambda _text: self.update())
        ui.fedAcceptCheckBox.connect("toggled(bool)", lambda _on: self.update())
        ui.fedConsentButton.connect("clicked(bool)", self._onConsent)
        ui.fedRevokeButton.connect("clicked(bool)", self._onRevoke)
        ui.fedRemoveButton.connect("clicked(bool)", self._onRemove)
        ui.fedCheckCaseButton.connect("clicked(bool)", self._onCheck)
        ui.fedAddButton.connect("clicked(bool)", self._onAdd)
        ui.fedFolderButton.connect("clicked(bool)", self._onFolder)
        self._fill(None)

    def setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        """Follow these parameters; None while the scene is closed."""
        self._parameters = parameters
        self.update()

    def update(self) -> None:
        """Show the cases, and say what can be done."""
        self._keepToday()
        cohort = self.logic.cohort
        if cohort is not self._shown:
            self._fill(cohort)
        self._fillNaming(*(cohort["structures"], cohort["naming"]) if cohort is not None else ([], {}))
        self._updateButtons()
        offer = self.logic.offer if self._checked == self._key() else None
        isOpen = not self.ui.fedAddCollapsibleButton.collapsed
        self.ui.fedNamingTable.setVisible(isOpen and bool(self._choices))
        self.ui.fedFindingsLabel.setVisible(isOpen and offer is not None)
        if offer is not None:
            self.ui.fedFindingsLabel.text = findingsWords(offer)
        acceptable = self._acceptable(offer)
        self.ui.fedAcceptCheckBox.setVisible(isOpen and bool(acceptable))
        self._updateAdding(offer, acceptable)

    # What is shown

    def _fill(self, cohort: dict[str, Any] | None) -> None:
        self._shown = cohort
        cases = cohort["cases"] if cohort is not None else []
        uses = {"train": _("train"), "validation": _("score")}
        rows = [[case["title"], uses.get(case["role"], ""), consentWords(case)] for case in cases]
        tips = [_("Patient {patient}, added {day}.").format(patient=c["patient"], day=c["added"]) for c in cases]
        table = self.ui.fedCaseTable
        fillTable(table, rows, tips)
        for row, case in enumerate(cases):
            picture = qt.QPixmap(case["thumbnail"])
            if not picture.isNull():
                table.item(row, 0).setIcon(qt.QIcon(picture))
        table.setVisible(bool(cases))
        fitTable(table, MOST_ROWS)
        self.ui.fedCohortLabel.text = (
            cohortWords(cohort) if cases else _("There is no case yet. Add a volume of the scene below.")
        )
        self.ui.fedCohortLabel.setVisible(cohort is not None)

    def _fillNaming(self, structures: list[str], stored: dict[str, Any]) -> None:
        """List the federation's structures, each with the segments of the chosen segmentation to choose from.

        What was said for earlier cases holds for the next one, and is therefore what is chosen at first.
        """
        node = self._segmentation()
        segments = []
        if node is not None:
            segmentation = node.GetSegmentation()
            segments = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
        named = (tuple(structures), tuple(segments), str(stored))
        if named == self._named:
            return
        self._named, self._stored = named, stored
        table = self.ui.fedNamingTable
        table.setRowCount(len(structures))
        self._choices, self._values = {}, {}
        before = self.ui.fedPatientLineEdit  # the Tab key goes from there through the table
        for row, structure in enumerate(structures):
            table.setItem(row, 0, qt.QTableWidgetItem(structure))
            values, known = [None, NOT_ANNOTATED, *([name] for name in segments)], stored.get(structure)
            others = [] if known in values else [known]  # segments of earlier cases that this one does not have
            choice = qt.QComboBox()
            choice.addItems([_("by its code or name"), _("I do not outline it"), *segments, *map(", ".join, others)])
            choice.setCurrentIndex([*values, *others].index(known))
            choice.setToolTip(_("Which of your segments is {structure}.").format(structure=structure))
            choice.connect("currentIndexChanged(int)", lambda _index: self.update())
            table.setCellWidget(row, 1, choice)
            qt.QWidget.setTabOrder(before, choice)
            before = choice
            self._choices[structure], self._values[structure] = choice, [*values, *others]
        fitTable(table, MOST_ROWS)

    def _updateButtons(self) -> None:
        case, ui, busy = self._case(), self.ui, self.logic.reasonToWait()
        choose = _("Choose a case in the table first.") if case is None else ""
        consented = case is not None and case["consented"]
        by = ui.fedConsentLineEdit.text.strip()
        reason = choose or (_("There is consent already.") if consented else "" if by else _("Say who consented."))
        offerButton(ui.fedConsentButton, _("The case takes part from the next round on."), reason, busy)
        reason = choose or ("" if consented else _("There is no consent to take back."))
        offerButton(ui.fedRevokeButton, _("The case is in no further round."), reason, busy)
        offerButton(ui.fedRemoveButton, _("Delete the site's copy; your own images are not touched."), choose, busy)

    def _updateAdding(self, offer: dict[str, Any] | None, acceptable: list[str]) -> None:
        ui, busy = self.ui, self.logic.reasonToWait()
        reason = self._reasonNoOffer()
        offerButton(ui.fedCheckCaseButton, _("See what speaks against this case; nothing is added."), reason, busy)
        if not reason and offer is None:
            reason = _("Check the case first.")
        elif not reason and offer["refused"] and not (acceptable and ui.fedAcceptCheckBox.checked):
            reason = _("What was found keeps the case out.")
        by = ui.fedConsentLineEdit.text.strip()
        willDo = _("Copies the case into the site's store, with the consent of {by}.").format(by=by)
        offerButton(
            ui.fedAddButton, willDo if by else _("Copies the case; it is not used before consent."), reason, busy
        )
        offerButton(
            ui.fedFolderButton,
            self._folderTip,
            busy,
            "" if self._parameters is not None else _("The scene is being closed."),
        )

    def _reasonNoOffer(self) -> str:
        if self._parameters is None or self._parameters.fedVolume is None:
            return _("Choose the volume of the case.")
        if self._parameters.fedSegmentation is None:
            return _("Choose its segmentation.")
        return "" if self.ui.fedPatientLineEdit.text.strip() else _("Give your id of the patient.")

    def _acceptable(self, offer: dict[str, Any] | None) -> list[str]:
        """Return the refusals a person may overrule; none if there are others too."""
        if offer is None or not offer["refused"]:
            return []
        can = {finding["code"] for finding in offer["findings"] if finding["acceptable"]}
        return list(offer["refused"]) if set(offer["refused"]) <= can else []

    # What the user does

    def _onConsent(self, _checked: bool = False) -> None:
        self.logic.consent(self._case()["case"], self.ui.fedConsentLineEdit.text, self._day())

    def _onRevoke(self, _checked: bool = False) -> None:
        self.logic.revoke(self._case()["case"])

    def _onRemove(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The case could not be removed.")):
            question = _("Delete the site's copy of this case? Your own images are not touched.")
            if confirm(question, _("Delete")):
                self.logic.remove(self._case()["case"])

    def _onCheck(self, _checked: bool = False) -> None:
        self.ui.fedAcceptCheckBox.checked = False
        self._checked = self._key()
        self._tell(lambda: self.logic.checkCase(self._offer()))

    def _onAdd(self, _checked: bool = False) -> None:
        accept = self._acceptable(self.logic.offer) if self.ui.fedAcceptCheckBox.checked else []
        by = self.ui.fedConsentLineEdit.text
        self._tell(lambda: self.logic.addCase(self._offer(tuple(accept)), by, self._day(), self._onAdded))

    def _onAdded(self) -> None:
        """The next volume may be another patient's."""
        self.ui.fedPatientLineEdit.setText("")

    def _onFolder(self, _checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Add the cases of a folder"))
        if folder:
            self.addFolder(folder)

    def addFolder(self, folder: str) -> None:
        """Add the images of a folder that have a segmentation beside them, with what is chosen here for all of them."""
        kind = self._parameters.fedModality
        modality = None if kind is ModalityChoice.AUTO else kind.value
        self.logic.addFolder(folder, modality, self._naming(), self.ui.fedConsentLineEdit.text, self._day())

    def _tell(self, work: object) -> None:
        from .Errors import UserError

        with slicer.util.tryWithErrorDisplay(_("The case could not be handed over.")):
            try:
                work()
            except UserError as error:
                self.logic.failed.emit(error)

    def _offer(self, accept: tuple[str, ...] = ()) -> CaseOffer:
        chosen = self._parameters
        kind = chosen.fedModality
        return CaseOffer(
            chosen.fedVolume,
            chosen.fedSegmentation,
            self.ui.fedPatientLineEdit.text,
            None if kind is ModalityChoice.AUTO else kind.value,
            self._naming(),
            accept,
        )

    def _naming(self) -> dict[str, Any]:
        """Return what is chosen for each structure; None, "by its code or name", takes back what was said before."""
        chosen = {name: self._values[name][choice.currentIndex] for name, choice in self._choices.items()}
        return {name: value for name, value in chosen.items() if value is not None or name in self._stored}

    def _key(self) -> tuple | None:
        """Return what a check was of; where it is not what is chosen now, its findings say nothing."""
        if self._parameters is None or self._parameters.fedVolume is None or self._segmentation() is None:
            return None
        chosen = self._parameters
        return (
            chosen.fedVolume.GetID(),
            chosen.fedSegmentation.GetID(),
            chosen.fedModality,
            self.ui.fedPatientLineEdit.text,
            str(self._naming()),
        )

    def _segmentation(self) -> object:
        return self._parameters.fedSegmentation if self._parameters is not None else None

    def _case(self) -> dict[str, Any] | None:
        rows = sorted({index.row() for index in self.ui.fedCaseTable.selectionModel().selectedRows()})
        cases = self._shown["cases"] if self._shown is not None else []
        return cases[rows[0]] if rows and rows[0] < len(cases) else None

    def _keepToday(self) -> None:
        """Offer today's date also where Slicer has been open overnight; a day that somebody chose stays."""
        former, self._today = self._today, today()
        if former != self._today and self._shownDay() == former:
            self._showDay(self._today)

    def _day(self) -> str:
        self._keepToday()
        return self._shownDay()

    def _showDay(self, day: str) -> None:
        self.ui.fedConsentDateEdit.setDate(qt.QDate.fromString(day, DAY))

    def _shownDay(self) -> str:
        return self.ui.fedConsentDateEdit.date.toString(DAY)


def today() -> str:
    """Return the day of this computer's clock, ``YYYY-MM-DD``."""
    return dt.date.today().isoformat()
