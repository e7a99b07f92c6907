"""The part of the Federation tab for training: start, pause, leave, hours and cores, the rounds so far."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Buttons import offerButton
from .Dialogs import confirm
from .FederationLogic import FederationLogic
from .FederationTypes import SiteFacts
from .Parameters import DeviceChoice
from .ReadyCheck import reasonDevice
from .RoundPlots import RoundPlots, labelsOf
from .Tables import fillTable, fitColumns, fitTable, prepareTable

MOST_ROWS = 6
USUAL_HOURS = ("19:00", "07:00")


class TrainingPanel:
    """Drives the widgets below "Training".

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what asks the worker.
    """

    def __init__(self, ui: object, logic: FederationLogic) -> None:
        self.ui = ui
        self.logic = logic
        self.plots = RoundPlots()
        self._rounds: list[dict[str, Any]] = []
        self._known: dict[str, Any] | None = None
        for device in DeviceChoice:
            ui.fedDeviceComboBox.addItem(device.label())
        prepareTable(ui.fedRoundTable, 0, MOST_ROWS)
        self._showHours(None)
        self._showRounds([], {})
        ui.fedRunButton.connect("clicked(bool)", self._onRun)
        ui.fedPauseButton.connect("clicked(bool)", self._onPause)
        ui.fedLeaveButton.connect("clicked(bool)", self._onLeave)
        ui.fedForgetButton.connect("clicked(bool)", self._onForget)
        ui.fedApplyButton.connect("clicked(bool)", self._onApply)
        ui.fedPlotButton.connect("clicked(bool)", self._onPlot)
        ui.fedHoursCheckBox.connect("toggled(bool)", lambda _on: self.update())
        ui.fedCoresSpinBox.connect("valueChanged(int)", lambda _n: self.update())
        ui.fedDeviceComboBox.connect("currentIndexChanged(int)", lambda _n: self.update())
        for edit in (ui.fedFromTimeEdit, ui.fedToTimeEdit):
            edit.connect("timeChanged(QTime)", lambda _time: self.update())

    def update(self) -> None:
        """Show how training stands, and say what can be done."""
        facts = self.logic.facts
        if facts is None or facts.member is None:
            return
        settings = {name: facts.member[name] for name in ("hours", "cores_free", "device")}
        if settings != self._known:
            self._known = settings
            self._showSettings(settings)
        if facts.member["rounds"] != self._rounds:
            self._showRounds(facts.member["rounds"], facts.member["colours"])
        self._updateButtons(facts)
        isTraining = facts.state == "training"
        self.ui.fedRoundProgressBar.setVisible(isTraining)
        self.ui.fedRoundProgressBar.value = round(1000 * facts.fraction)
        self.ui.fedRoundLabel.setVisible(not self._rounds)
        self.ui.fedRoundLabel.text = _("No round was trained here yet.")

    def cleanup(self) -> None:
        """Remove the plots."""
        self.plots.clear()

    # What is shown

    def _updateButtons(self, facts: SiteFacts) -> None:
        ui, busy = self.ui, self.logic.reasonToWait()
        hasLeft = _("The site has left the federation.") if facts.member["leaving"] else ""
        ui.fedRunButton.text = _("Stop") if facts.isRunning else _("Start")
        if facts.isRunning:
            offerButton(ui.fedRunButton, _("End the site's processes; a round in training is given up."), busy)
        else:
            goesOn = _("Take part; this goes on when Slicer is closed, if you want it to.")
            offerButton(ui.fedRunButton, goesOn, hasLeft, busy)
        isPaused = facts.member["paused"]
        ui.fedPauseButton.text = _("Resume") if isPaused else _("Pause")
        willDo = _("Take part again.") if isPaused else _("Train nothing until you resume, also after a restart.")
        offerButton(ui.fedPauseButton, willDo, hasLeft, busy)
        forGood = _("Leave for good; only a new invitation brings the site back.")
        offerButton(ui.fedLeaveButton, forGood, hasLeft, busy)
        unchanged = "" if self._changed() else _("These settings are in use.")
        offerButton(ui.fedApplyButton, _("Also while the site runs."), hasLeft, unchanged, self._reasonDevice(), busy)
        ui.fedForgetButton.setVisible(facts.isOut)
        ends = _("The site's processes are ending; that takes a moment.") if facts.isRunning else ""
        forgets = _("Delete the site's key, its copies of cases, its logs and models; the journal stays.")
        offerButton(ui.fedForgetButton, forgets, ends, busy)
        for edit in (ui.fedFromTimeEdit, ui.fedToTimeEdit):
            edit.enabled = ui.fedHoursCheckBox.checked
            free = _("It may train at any hour.")
            edit.toolTip = _("Hours of this computer's clock.") if edit.enabled else free
        plots = _("Show loss and Dice by round in a plot view.")
        offerButton(ui.fedPlotButton, plots, "" if self._rounds else _("There is nothing to plot yet."))

    def _showRounds(self, rounds: list[dict[str, Any]], colors: dict[str, list[int]]) -> None:
        self._rounds, self.plots.colors = rounds, colors
        table, labels = self.ui.fedRoundTable, labelsOf(rounds)
        table.setColumnCount(2 + len(labels))
        table.setHorizontalHeaderLabels(
            [_("Round"), _("Loss"), *(_("Dice\n{label}").format(label=name) for name in labels)]
        )
        fitColumns(table)
        rows = [
            [
                _("{number} of {rounds}").format(number=entry["round_number"], rounds=entry["rounds"]),
                _decimals(entry["loss"]),
                *(_decimals(entry["dice"].get(label)) for label in labels),
            ]
            for entry in reversed(rounds)
        ]
        fillTable(table, rows)
        table.setVisible(bool(rounds))
        fitTable(table, MOST_ROWS)
        self.plots.update(rounds)

    def _showSettings(self, settings: dict[str, Any]) -> None:
        self._showHours(settings["hours"])
        self.ui.fedCoresSpinBox.setValue(settings["cores_free"])
        devices = [device.value for device in DeviceChoice]
        if settings["device"] in devices:
            self.ui.fedDeviceComboBox.setCurrentIndex(devices.index(settings["device"]))

    def _showHours(self, hours: str | None) -> None:
        begin, end = hours.split("-") if hours else USUAL_HOURS
        self.ui.fedHoursCheckBox.setChecked(bool(hours))
        self.ui.fedFromTimeEdit.setTime(qt.QTime.fromString(begin, "HH:mm"))
        self.ui.fedToTimeEdit.setTime(qt.QTime.fromString(end, "HH:mm"))

    # What the user does

    def _wanted(self) -> dict[str, Any]:
        ui = self.ui
        begin, end = (edit.time.toString("HH:mm") for edit in (ui.fedFromTimeEdit, ui.fedToTimeEdit))
        return {
            "hours": f"{begin}-{end}" if ui.fedHoursCheckBox.checked else None,
            "cores_free": ui.fedCoresSpinBox.value,
            "device": list(DeviceChoice)[max(0, ui.fedDeviceComboBox.currentIndex)].value,
        }

    def _changed(self) -> bool:
        return self._known is not None and self._wanted() != self._known

    def _reasonDevice(self) -> str:
        wanted = self._wanted()["device"]
        isNew = self._known is not None and wanted != self._known["device"]
        return reasonDevice(wanted, self.logic.session.devices) if isNew else ""

    def _onRun(self, _checked: bool = False) -> None:
        if self.logic.facts.isRunning:
            self.logic.stop()
        else:
            self.logic.start()

    def _onPause(self, _checked: bool = False) -> None:
        self.logic.control("resume" if self.logic.facts.member["paused"] else "pause")

    def _onLeave(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The site could not leave.")):
            question = _("Leave the federation? Only a new invitation brings this site back. The journal stays.")
            if confirm(question, _("Leave")):
                self.logic.control("leave")

    def _onForget(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The site could not be deleted.")):
            question = _(
                "Delete everything of this federation on this computer: the site's key, its copies of cases with "
                "their consents, its logs, and the models that it received? Your own images are not touched, and the "
                "journal stays."
            )
            if confirm(question, _("Delete")):
                self.logic.control("forget")

    def _onApply(self, _checked: bool = False) -> None:
        self.logic.control("set", self._wanted())

    def _onPlot(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The plot could not be shown.")):
            self.plots.show(self._rounds)


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
