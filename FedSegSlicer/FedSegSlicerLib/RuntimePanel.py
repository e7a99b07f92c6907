"""The panel above the tabs that installs the runtime, and the settings that repair, remove and choose it."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from .Dialogs import confirm
from .Errors import UserError
from .QtTimer import callLater
from .RuntimeInstaller import InstallOptions, Plan, RuntimeInstaller, RuntimeState
from .RuntimeProblems import problemOf
from .Settings import (
    RUNTIME_BUILD,
    RUNTIME_CA,
    RUNTIME_FOLDER,
    RUNTIME_PROXY,
    RUNTIME_WHEELS,
    readSetting,
    runtimeFolder,
    writeSetting,
)
from .WordsForPeople import sizeWords
from .WorkerSession import WorkerSession

BUILDS = ("auto", "cpu", "cuda")


class RuntimePanel:
    """Drives the widgets named ``runtime…``.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        installer: what does the work.
        sessions: of the tabs, which tell of a runtime of another version.
        onChanged: called when there is another runtime than before, or none any more.
    """

    def __init__(
        self,
        ui: object,
        installer: RuntimeInstaller,
        sessions: list[WorkerSession],
        onChanged: Callable[[], None],
    ) -> None:
        self.ui = ui
        self.installer = installer
        self._sessions = sessions
        self._onRuntimeChanged = onChanged
        self._isOpen = False
        self._fresh = False
        self._isStale = self._isElsewhere = False
        self._prepareWidgets()
        self._connect()
        self.refresh()

    def refresh(self) -> None:
        """Look again whether there is a runtime, as when the module is entered."""
        if self.installer.state.isBusy:
            return
        self.installer.assume()
        if self.installer.state is not RuntimeState.READY and self.installer.plan is None:
            self._look()

    def options(self) -> InstallOptions:
        """Return what the user chose."""
        return InstallOptions(
            folder=str(runtimeFolder()),
            build=BUILDS[max(0, self.ui.runtimeBuildComboBox.currentIndex)],
            wheels=self.ui.runtimeWheelsEdit.currentPath,
            proxy=self.ui.runtimeProxyEdit.text.strip(),
            ca=self.ui.runtimeCaEdit.currentPath,
        )

    def cleanup(self) -> None:
        """End what runs; the widgets are about to be destroyed."""
        for session in self._sessions:
            session.started.disconnect(self._onWorkerStarted)
        self._isStale = False
        self.installer.changed.disconnect(self._update)
        self.installer.ready.disconnect(self._onReady)
        self.installer.removed.disconnect(self._onRemoved)
        self.installer.aged.disconnect(self._look)
        self.installer.close()

    # Set-up

    def _prepareWidgets(self) -> None:
        ui = self.ui
        ui.runtimeFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.runtimeWheelsEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.runtimeCaEdit.filters = ctk.ctkPathLineEdit.Files
        ui.runtimeFolderEdit.currentPath = str(runtimeFolder())
        ui.runtimeWheelsEdit.currentPath = readSetting(RUNTIME_WHEELS)
        ui.runtimeCaEdit.currentPath = readSetting(RUNTIME_CA)
        ui.runtimeProxyEdit.setText(readSetting(RUNTIME_PROXY))
        for text in (_("Automatic"), _("Processor only"), _("NVIDIA graphics card (CUDA)")):
            ui.runtimeBuildComboBox.addItem(text)
        build = readSetting(RUNTIME_BUILD)
        ui.runtimeBuildComboBox.currentIndex = BUILDS.index(build) if build in BUILDS else 0
        ui.runtimeOptionsButton.collapsed = True

    def _connect(self) -> None:
        ui = self.ui
        ui.runtimeInstallButton.connect("clicked(bool)", self._onInstall)
        ui.runtimeCloseButton.connect("clicked(bool)", self._onClose)
        ui.runtimeLogButton.connect("clicked(bool)", self._onLog)
        ui.runtimeRepairButton.connect("clicked(bool)", self._onRepair)
        ui.runtimeRemoveButton.connect("clicked(bool)", self._onRemove)
        ui.runtimeCheckButton.connect("clicked(bool)", self._onCheck)
        ui.runtimeBuildComboBox.connect("currentIndexChanged(int)", self._onBuild)
        ui.runtimeFolderEdit.connect("currentPathChanged(QString)", self._onFolder)
        ui.runtimeWheelsEdit.connect("currentPathChanged(QString)", lambda path: self._keep(RUNTIME_WHEELS, path))
        ui.runtimeCaEdit.connect("currentPathChanged(QString)", lambda path: self._keep(RUNTIME_CA, path))
        ui.runtimeProxyEdit.connect("editingFinished()", self._onProxy)
        ui.runtimePathEdit.connect("currentPathChanged(QString)", lambda _path: self.refresh())
        for session in self._sessions:
            session.started.connect(self._onWorkerStarted)
        self.installer.changed.connect(self._update)
        self.installer.ready.connect(self._onReady)
        self.installer.removed.connect(self._onRemoved)
        self.installer.aged.connect(self._look)

    # What the user does

    def _onInstall(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The runtime could not be installed.")):
            if self.installer.state.isBusy:
                self.installer.cancel()
            else:
                self._renewWorkers()
                self.installer.install(self.options(), fresh=self._fresh)

    def _onRepair(self, _checked: bool = False) -> None:
        self._isOpen = self._fresh = True
        self._look()
        self._update()

    def _onClose(self, _checked: bool = False) -> None:
        self._isOpen = self._fresh = False
        self.refresh()
        self._update()

    def _onCheck(self, _checked: bool = False) -> None:
        self._isOpen = True
        self.installer.check(self.options())

    def _onRemove(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The runtime could not be removed.")):
            question = _("Remove the runtime from {folder}? Models and your site's data stay.")
            if self._isFree() and confirm(question.format(folder=runtimeFolder()), _("Remove")) and self._isFree():
                self._renewWorkers()
                self.installer.remove(self.options())

    def _isFree(self) -> bool:
        """Return whether no worker has something to do; else say so."""
        if any(session.isBusy() for session in WorkerSession.everyOne()):
            self._isOpen = True
            self.installer.refuse(problemOf("runtime.working"))
            return False
        return True

    def _onLog(self, _checked: bool = False) -> None:
        path = self.installer.logPath(self.options())
        if path.is_file():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))
        else:
            slicer.util.infoDisplay(self.installer.logText(self.options()) or _("There is no log yet."))

    def _onBuild(self, index: int) -> None:
        self._keep(RUNTIME_BUILD, BUILDS[index])

    def _onFolder(self, path: str) -> None:
        self._isElsewhere = True
        self._keep(RUNTIME_FOLDER, path)

    def _onProxy(self) -> None:
        address = self.ui.runtimeProxyEdit.text.strip()
        writeSetting(RUNTIME_PROXY, "" if "@" in address else address)  # no password is kept

    def _keep(self, key: str, value: str) -> None:
        writeSetting(key, value)
        self._look()

    def _look(self) -> None:
        """Find out what an installation would take; again, where it is being found out for what was typed so far."""
        self._isStale = self.installer.state.isBusy
        if self._isStale:
            return
        if self._isElsewhere:
            self._isElsewhere = False
            self.installer.assume()  # what was found of the former folder says nothing of this one
        self.installer.look(self.options(), self._fresh)

    def _lookAgain(self) -> None:
        if self._isStale:
            self._look()

    def _renewWorkers(self) -> None:
        """End all workers of the runtime as soon as they have nothing to do; what one is doing is never cut off."""
        for session in WorkerSession.everyOne():
            session.renew()

    # What is told

    def _onWorkerStarted(self, problem: UserError | None) -> None:
        """Offer to update a runtime whose worker is of another version."""
        if problem is not None and not self.installer.state.isBusy:
            self.installer.outdated(problem)
            self._look()

    def _onReady(self) -> None:
        wasChecked = self._isOpen and not self._fresh
        self._isOpen, self._fresh = wasChecked, False
        if not wasChecked:
            self._renewWorkers()
            self.ui.runtimePathEdit.currentPath = ""  # what was just installed is what is meant
        self._update()
        self._onRuntimeChanged()

    def _onRemoved(self) -> None:
        self._isOpen = self._fresh = False
        self.refresh()
        self._onRuntimeChanged()

    # What is shown

    def _update(self) -> None:
        ui, installer = self.ui, self.installer
        if self._isStale and not installer.state.isBusy:
            callLater(0, self._lookAgain)
        state, problem = installer.state, installer.problem
        isQuietLook = state is RuntimeState.LOOKING and not self._isOpen and installer.plan is not None
        isFine = state is RuntimeState.READY or isQuietLook
        ui.runtimeFrame.setVisible(self._isOpen or not isFine or problem is not None)
        ui.runtimeTitleLabel.text = titleWords(state, self._fresh)
        ui.runtimePlanLabel.text = planWords(installer.plan, runtimeFolder())
        ui.runtimePlanLabel.setVisible(state not in _AT_WORK and bool(ui.runtimePlanLabel.text))
        ui.runtimeOptionsButton.setVisible(state not in _AT_WORK)
        ui.runtimeProgressBar.setVisible(state in _AT_WORK)
        ui.runtimeProgressBar.value = round(1000 * installer.fraction)
        ui.runtimeProgressLabel.setVisible(state in _AT_WORK)
        ui.runtimeProgressLabel.text = stageWords(installer.stage, installer.lines)
        ui.runtimeMessageLabel.setVisible(problem is not None and state not in _AT_WORK)
        if problem is not None:
            ui.runtimeMessageLabel.text = (
                f"<b>{html.escape(problem.cause)}</b><br>{html.escape(problem.remedy)}"
                f"<br><small>{html.escape(problem.code)}</small>"
            )
        ui.runtimeLogButton.setVisible(bool(installer.lines) or problem is not None)
        isNoted = state is RuntimeState.READY and problem is not None
        ui.runtimeCloseButton.setVisible((self._isOpen or isNoted) and not state.isBusy)
        self._updateInstallButton()
        self._updateSettings()
        ui.runtimeInfoLabel.text = presentWords(installer.present)
        ui.runtimeInfoLabel.setVisible(bool(ui.runtimeInfoLabel.text))

    def _updateSettings(self) -> None:
        installer = self.installer
        absent = "" if installer.present else _("The module has not installed a runtime.")
        reason = _("Please wait.") if installer.state.isBusy else absent
        tips = (
            (self.ui.runtimeCheckButton, _("Import in a child process what the worker needs.")),
            (self.ui.runtimeRepairButton, _("Install it again; the present one stays in use until the new one works.")),
            (self.ui.runtimeRemoveButton, _("Delete the runtime that this module installed.")),
        )
        for button, tip in tips:
            button.enabled = not reason
            button.toolTip = reason or tip

    def _updateInstallButton(self) -> None:
        button, installer = self.ui.runtimeInstallButton, self.installer
        state = installer.state
        isWorking = state in (RuntimeState.INSTALLING, RuntimeState.CHECKING)
        button.text = _("Cancel") if isWorking else installWords(state, self._fresh)
        reason = self._reasonNotReady()
        button.enabled = isWorking or not reason
        button.toolTip = (
            _("Stop; what was there before stays in use.")
            if isWorking
            else reason or _("Install into FedSegSlicer's own folder. Slicer's own Python packages are not touched.")
        )

    def _reasonNotReady(self) -> str:
        installer = self.installer
        if installer.state.isBusy:
            return _("Please wait.")
        if installer.plan is None:
            return _("What would be installed is not known yet.")
        if not installer.plan.fits:
            return _("There is not enough room: make some, or choose another folder under Options.")
        return ""


_AT_WORK = (RuntimeState.INSTALLING, RuntimeState.CHECKING, RuntimeState.CANCELLING, RuntimeState.REMOVING)


def titleWords(state: RuntimeState, isRepair: bool) -> str:
    """Return what the panel says first."""
    if isRepair and state in (RuntimeState.READY, RuntimeState.LOOKING):
        return _("Install FedSegSlicer's runtime again. The present one stays in use until the new one works.")
    return {
        RuntimeState.ABSENT: _(
            "FedSegSlicer computes in a runtime of its own (PyTorch, MONAI, Flower), which is not installed yet. "
            "Slicer's own packages stay as they are."
        ),
        RuntimeState.OUTDATED: _("FedSegSlicer's runtime does not belong to this version of the module."),
        RuntimeState.BROKEN: _("FedSegSlicer's runtime cannot be used."),
        RuntimeState.READY: _("FedSegSlicer's runtime is ready."),
        RuntimeState.INSTALLING: _("FedSegSlicer's runtime is being installed. You can go on working meanwhile."),
        RuntimeState.CHECKING: _("FedSegSlicer's runtime is being checked."),
        RuntimeState.CANCELLING: _("Cancelling…"),
        RuntimeState.REMOVING: _("FedSegSlicer's runtime is being removed."),
    }.get(state, _("Looking for FedSegSlicer's runtime…"))


def installWords(state: RuntimeState, isRepair: bool) -> str:
    """Return what the button says."""
    if isRepair or state is RuntimeState.BROKEN:
        return _("Repair")
    return _("Update") if state is RuntimeState.OUTDATED else _("Install")


def planWords(plan: Plan | None, folder: Path) -> str:
    """Return what an installation would take."""
    if plan is None:
        return ""
    builds = {"cpu": _("for the processor"), "cuda": _("for the NVIDIA graphics card")}
    room = _("Needs {disk} on the disk while installing; {free} are free in {folder}.").format(
        disk=sizeWords(plan.diskMb), free=sizeWords(plan.freeMb), folder=folder
    )
    if plan.downloadMb:
        fetched = _("About {size} to download, {build}.").format(
            size=sizeWords(plan.downloadMb), build=builds[plan.build]
        )
    else:
        fetched = _("Nothing to download.")
    return " ".join([fetched, room])


def stageWords(stage: str, lines: list[str]) -> str:
    """Return how far it is: the stage, and which package."""
    stages = {
        "looking for packages": _("Looking for packages"),
        "downloading": _("Downloading"),
        "reading wheels": _("Reading wheels"),
        "unpacking": _("Unpacking; this takes some minutes"),
        "copying FedSegCore": _("Copying FedSegCore"),
        "checking": _("Checking: importing what the worker needs"),
        "deleting": _("Deleting files"),
    }
    collecting = next((line for line in reversed(lines) if line.startswith("Collecting ")), "")
    isNamed = stage in ("looking for packages", "downloading") and collecting
    name = re.split(r"[^\w.-]", collecting.split()[1])[0] if isNamed else ""  # without the versions that are wanted
    return stages.get(stage, _("Starting")) + (f": {name}" if name else "") + "…"


def presentWords(present: dict) -> str:
    """Return what is installed."""
    if not present:
        return ""
    return _("Installed: version {version}, PyTorch {torch}, computes on {devices}.").format(
        version=present.get("version", ""),
        torch=present.get("torch") or "–",
        devices=", ".join(present.get("devices", [])),
    )
