"""The Segment tab: shows what SegmentLogic tells and hands it what the user wants."""

import html
from dataclasses import replace

import ctk
import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .Parameters import SURE, DeviceChoice, FedSegSlicerParameterNode, ModalityChoice
from .QueuePanel import QueuePanel
from .ReadyCheck import Choices, modalityToUse, reasonNotFit, reasonNotReady, releasesFor, releaseToUse
from .ResultPanel import ResultPanel
from .SegmentationResult import bringBack
from .SegmentLogic import SegmentLogic, State
from .SegmentQueue import SegmentQueue
from .SegmentTypes import Expectation, Inspection, Outcome, Release
from .Settings import RELEASES_FOLDER, RUNTIME, readSetting, writeSetting
from .VolumeExchange import checkVolume
from .WordsForPeople import (
    cardWords,
    confidenceWords,
    expectationWords,
    listedWords,
    newsWords,
    releaseWords,
    timeWords,
)
from .WorkerSession import WorkerSession


class SegmentTab:
    """Drives the widgets of the Segment tab.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what does the work.
    """

    def __init__(self, ui: object, logic: SegmentLogic) -> None:
        self.ui = ui
        self.logic = logic
        self._parameters: FedSegSlicerParameterNode | None = None
        self._parametersObserver: int | None = None
        self._choices = Choices()
        self._inspectedVolume: str | None = None
        self._latestVolume: str | None = None
        self._error: UserError | None = None
        self._fillingReleases = False
        self._news = ""
        self._expectedFor: tuple[str, ...] | None = None
        self._volumeObservers: list[tuple[object, int]] = []
        self.result = ResultPanel(ui, logic, self._update)
        self.queue = QueuePanel(
            ui,
            SegmentQueue(logic),
            self._decide,
            lambda: self._choices.device.value,
            lambda: self._choices.releases is None,
        )
        self._prepareWidgets()
        self._connect()
        self._update()

    def setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        """Follow these parameters; None while the scene is closed."""
        if self._parameters is not None:
            self._parameters.RemoveObserver(self._parametersObserver)
        self._parameters = parameters
        if parameters is not None:
            self._parametersObserver = parameters.AddObserver("ModifiedEvent", self._onParameters)
            volume = parameters.inputVolume
            self._latestVolume = volume.GetID() if volume is not None else None  # its kind is the scene's
        self._onParameters()

    def refresh(self) -> None:
        """List the releases, and look again at a volume that was refused, as when the module is entered.

        What was listed before of the same folder can be used meanwhile.
        """
        if not isinstance(self._choices.inspection, Inspection):
            self._inspectedVolume = None
        self._listReleases()
        self._onParameters()
        self.result.refresh(self._choices.volume)
        self.queue.refresh()

    def announce(self, release: str) -> None:
        """Say that the federation has sent a model, and list it."""
        self._news = release
        self.refresh()

    def exit(self) -> None:
        """What was announced has been read."""
        self._news = ""
        self.ui.noticeLabel.setVisible(False)

    def closeScene(self) -> None:
        """Cancel everything; the scene is about to be closed."""
        if self.queue.queue.isRunning:
            self.queue.queue.cancelAll()
        self.logic.cancel()
        self.logic.forget()
        self.result.forget()
        self.queue.forget()

    def cleanup(self) -> None:
        """End everything; the widgets are about to be destroyed."""
        self.logic.session.started.disconnect(self._onWorkerStarted)
        self.queue.queue.changed.disconnect(self._onQueue)
        self.queue.cleanup()
        self.logic.close()
        self.setParameters(None)

    def _decide(self, found: Inspection) -> tuple[str, str]:
        """Return what a volume of the queue is segmented as, and by which release.

        What is chosen for one volume is not for all: it counts for those of which it cannot be told what they are.
        """
        modality = ModalityChoice.AUTO if found.confidence >= SURE else self._choices.modality
        choices = replace(self._choices, inspection=found, modality=modality, release="")
        reason = reasonNotFit(choices)
        if reason:
            raise UserError("queue.not-ready", reason, _("Choose the kind of image above, and try again."))
        return modalityToUse(choices), releaseToUse(choices).id

    # Set-up

    def _prepareWidgets(self) -> None:
        self.ui.releasesPathEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.runtimePathEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.releasesPathEdit.currentPath = readSetting(RELEASES_FOLDER)
        self.ui.runtimePathEdit.currentPath = readSetting(RUNTIME)
        self.ui.settingsCollapsibleButton.collapsed = bool(readSetting(RELEASES_FOLDER))
        self.ui.messageLabel.setVisible(False)
        self.ui.noticeLabel.setVisible(False)

    def _connect(self) -> None:
        self.ui.segmentButton.connect("clicked(bool)", self._onButton)
        self.ui.releaseComboBox.connect("currentIndexChanged(int)", self._onReleaseChosen)
        self.ui.releasesPathEdit.connect("currentPathChanged(QString)", self._onReleasesFolder)
        self.ui.runtimePathEdit.connect("currentPathChanged(QString)", self._onRuntime)
        self.logic.inspected.connect(self._onInspected)
        self.logic.expected.connect(self._onExpected)
        self.logic.releasesListed.connect(self._onReleasesListed)
        self.logic.progressed.connect(self._onProgress)
        self.logic.finished.connect(self._onFinished)
        self.logic.failed.connect(self._onFailed)
        self.logic.session.started.connect(self._onWorkerStarted)
        self.queue.queue.changed.connect(self._onQueue)

    # What the user does

    def _onButton(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The segmentation could not be started.")):
            if self.queue.queue.isRunning:
                self.queue.queue.cancelThis()
            elif self.logic.state is State.RUNNING:
                self.logic.cancel()
            else:
                self._start()
            self._update()

    def _start(self) -> None:
        self._showError(None)
        self.result.clear()
        try:
            self.logic.segment(
                self._parameters.inputVolume,
                modalityToUse(self._choices),
                releaseToUse(self._choices).id,
                readSetting(RELEASES_FOLDER),
                self._parameters.device.value,
            )
        except UserError as error:
            self._showError(error)
            self.result.choose(self._choices.volume)

    def _onParameters(self, *_args: object) -> None:
        parameters = self._parameters
        volume = parameters.inputVolume if parameters is not None else None
        self._choices.volume = volume
        self._choices.modality = parameters.modality if parameters is not None else ModalityChoice.AUTO
        self._choices.release = parameters.release if parameters is not None else ""
        self._choices.device = parameters.device if parameters is not None else DeviceChoice.AUTO
        volumeId = volume.GetID() if volume is not None else None
        self._forgetKind(volumeId)
        if volumeId != self._inspectedVolume:
            self._inspectedVolume = volumeId
            self._observeVolume(volume)
            self._choices.inspection = None
            self._showError(None)
            self._showKnown()
            if volume is not None:
                self._inspect(volume)
        self._fillReleases()
        self._update()

    def _forgetKind(self, volumeId: str | None) -> None:
        """Detect again what another volume is: what the user said of one says nothing of the next."""
        if volumeId in (None, self._latestVolume):
            return
        former, self._latestVolume = self._latestVolume, volumeId
        if former is not None and not slicer.mrmlScene.IsBatchProcessing():  # else a scene is being loaded
            self._parameters.modality = self._choices.modality = ModalityChoice.AUTO

    def _showKnown(self) -> None:
        """Show the chosen volume's result, if it has one, also where those of others were shown since.

        That it was put aside is saved with the scene, and may be a script's doing: nothing need be known of it here.
        """
        self.result.choose(self._choices.volume)
        if self._choices.volume is not None:
            bringBack(self._choices.volume)

    def _observeVolume(self, volume: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
        for node, tag in self._volumeObservers:
            node.RemoveObserver(tag)
        events = (
            slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
        )
        observed = events if volume is not None else ()
        self._volumeObservers = [(volume, volume.AddObserver(event, self._onVolumeChanged)) for event in observed]

    def _onVolumeChanged(self, *_args: object) -> None:
        """Look again at a volume that was refused, or that has just got a transform; voxels may change all the time."""
        refused = isinstance(self._choices.inspection, UserError)
        moved = self._choices.volume is not None and self._choices.volume.GetParentTransformNode() is not None
        if (refused or moved) and not self.logic.isBusy:
            self._inspectedVolume = None
            self._onParameters()

    def _inspect(self, volume: "slicer.vtkMRMLScalarVolumeNode") -> None:
        try:
            checkVolume(volume)
        except UserError as error:
            self._choices.inspection = _withQueue(error)
            return
        self.logic.inspect(volume)

    def _onReleaseChosen(self, index: int) -> None:
        if not self._fillingReleases and self._parameters is not None and index >= 0:
            self._parameters.release = self.ui.releaseComboBox.itemData(index)

    def _onReleasesFolder(self, path: str) -> None:
        writeSetting(RELEASES_FOLDER, path)
        self._listReleases()

    def _onRuntime(self, path: str) -> None:
        writeSetting(RUNTIME, path)
        if not self.logic.isBusy:
            self.logic.session.stop()
        for session in WorkerSession.everyOne():
            session.renew()  # whoever else has a worker gets the new runtime once nothing is under way
        self.refresh()

    # What the logic tells

    def _onInspected(self, found: Inspection | UserError) -> None:
        self._choices.inspection = found
        self._fillReleases()
        self._update()

    def _listReleases(self) -> None:
        folder = readSetting(RELEASES_FOLDER)
        if not (folder and self._choices.releases and folder == self._choices.releasesFolder):
            self._choices.releases = None if folder else []
            self._choices.releasesError = None
        if folder:
            self.logic.listReleases(folder)
        self._choices.releasesFolder = folder
        self._fillReleases()
        self._update()

    def _onReleasesListed(self, releases: list[Release], error: UserError | None) -> None:
        self._choices.releases = releases
        self._choices.releasesError = error
        self._fillReleases()
        self._update()

    def _onWorkerStarted(self, problem: UserError | None) -> None:
        self._choices.devices = list(self.logic.session.devices)
        if problem is not None or (self._error is not None and self._error.code.startswith("runtime.")):
            self._showError(problem)  # also that there is a runtime that will do now
        self._update()

    def _onProgress(self, progress: Progress) -> None:
        self.ui.progressBar.value = round(1000 * progress.fraction)
        words = [progress.stage[:1].upper() + progress.stage[1:], timeWords(progress.etaSeconds)]
        self.ui.progressLabel.text = " · ".join(word for word in words if word)

    def _onFinished(self, outcome: Outcome) -> None:
        self.result.keep(outcome)
        self.result.choose(self._choices.volume)  # and not another one of the queue
        self._update()

    def _onFailed(self, error: UserError) -> None:
        self._showError(None if error.isCancelled else error)
        self.result.choose(self._choices.volume)  # nothing was changed: what was there before is there still
        self._update()
        if error.isCancelled:
            self.ui.progressLabel.text = error.cause
            self.ui.progressLabel.setVisible(True)

    def _onQueue(self) -> None:
        if not self.queue.queue.isRunning and self._parameters is not None:
            self._showKnown()  # and not the last one of the queue
        self._update()

    # What is shown

    def _update(self) -> None:
        running, isCancelling = self.logic.isBusy, self.logic.state is State.CANCELLING
        reason = "" if running else reasonNotReady(self._choices)
        button = self.ui.segmentButton
        button.text = _("Cancelling…") if isCancelling else _("Cancel") if running else _("Segment")
        button.enabled = not reason and not isCancelling
        button.toolTip = reason or (_("Stop; nothing is changed.") if running else _("Segment the volume."))
        for widget in (self.ui.inputSelector, self.ui.modalityComboBox, self.ui.deviceComboBox,
                       self.ui.runtimePathEdit, self.ui.releasesPathEdit):  # fmt: skip
            widget.enabled = not running
        self.ui.releaseComboBox.enabled = not running and self.ui.releaseComboBox.count > 0
        self.ui.progressBar.setVisible(running)
        if not running:
            self.ui.progressBar.value = 0
            self.ui.progressLabel.text = reason
        problem = self._error or self._choices.problem()
        self._showProblem(problem)
        self.ui.progressLabel.setVisible(running or (bool(reason) and problem is None))
        self._updateHints()
        self.result.update()
        self.queue.update()

    def _updateHints(self) -> None:
        self.ui.modalityLabel.text = confidenceWords(self._choices)
        self.ui.modalityLabel.setVisible(bool(self.ui.modalityLabel.text))
        release = releaseToUse(self._choices)
        self.ui.releaseLabel.text = releaseWords(release) if release is not None else ""
        self.ui.aboutLabel.text = cardWords(release) if release is not None else ""
        for widget in (self.ui.releaseLabel, self.ui.aboutCollapsibleButton):
            widget.setVisible(release is not None)
        if self._news:
            self.ui.noticeLabel.text = newsWords(self._news, self._choices)
            self.ui.noticeLabel.setVisible(True)
        self._askExpectation()

    def _askExpectation(self) -> None:
        """Ask how long it will take whenever another volume, model or device is chosen, or a run has ended."""
        ready = not self.logic.isBusy and not reasonNotReady(self._choices)
        if not ready:
            self._expectedFor = None
            self.ui.expectationLabel.setVisible(False)
            return
        volume, release = self._choices.volume, releaseToUse(self._choices).id
        question = (modalityToUse(self._choices), release, self._choices.releasesFolder, self._choices.device.value)
        if (volume.GetID(), *question) != self._expectedFor:
            self._expectedFor = (volume.GetID(), *question)
            self.logic.expect(volume, *question)

    def _onExpected(self, expectation: Expectation | None) -> None:
        self.ui.expectationLabel.text = "" if expectation is None else expectationWords(expectation)
        self.ui.expectationLabel.setVisible(expectation is not None and self._expectedFor is not None)

    def _showProblem(self, problem: UserError | None) -> None:
        self.ui.messageLabel.setVisible(problem is not None)
        if problem is not None and problem.code.startswith("runtime."):
            self.ui.settingsCollapsibleButton.collapsed = False
        if problem is not None:
            self.ui.messageLabel.text = (
                f"<b>{html.escape(problem.cause)}</b><br>{html.escape(problem.remedy)}"
                f"<br><small>{html.escape(problem.code)}</small>"
            )

    def _showError(self, error: UserError | None) -> None:
        self._error = error

    def _fillReleases(self) -> None:
        fitting = releasesFor(self._choices)
        chosen = releaseToUse(self._choices)
        combo = self.ui.releaseComboBox
        self._fillingReleases = True
        try:
            combo.clear()
            for release in fitting:
                combo.addItem(listedWords(release), release.id)
            combo.currentIndex = fitting.index(chosen) if chosen is not None else -1
        finally:
            self._fillingReleases = False


def _withQueue(error: UserError) -> UserError:
    """Say of a moment of a sequence that all of them can be segmented here."""
    if error.code != "volume.four-dimensional":
        return error
    return UserError(
        error.code, error.cause, _("Segment all its moments under 'Several volumes'. Or:") + " " + error.remedy
    )
