"""Segmenting from a script: one call that waits for its result, while Slicer's events go on."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .Parameters import DeviceChoice, ModalityChoice
from .ReadyCheck import Choices, modalityToUse, reasonNotReady, releasesFor, releaseToUse
from .SegmentLogic import SegmentLogic, busyError
from .SegmentTypes import Inspection, Outcome
from .Settings import RELEASES_FOLDER, readSetting
from .VolumeExchange import checkVolume
from .WorkerSession import cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

PAUSE_SECONDS = 0.01


class ScriptedSegmenter:
    """Segments one volume after the other with one worker, by the rules of the Segment tab.

    Args:
        logic: what does the work; closed with this.
    """

    def __init__(self, logic: SegmentLogic) -> None:
        self._logic = logic
        self._told: list[object] = []
        self._progress: Callable[[Progress], object] | None = None
        self._failure: Exception | None = None
        self._isClosed = self._isWaiting = False
        logic.finished.connect(self._tell)
        logic.failed.connect(self._tell)
        logic.releasesListed.connect(lambda *told: self._tell(told))
        logic.progressed.connect(self._onProgress)

    def segment(
        self, volumeNode: "vtkMRMLScalarVolumeNode", releasesFolder: str, release: str, modality: str, device: str,
        progress: Callable[[Progress], object] | None,
    ) -> Outcome:  # fmt: skip
        """See ``FedSegSlicerLogic.segment``; what ``progress`` raises ends the segmentation and is raised here."""
        if self._isWaiting or self._logic.isBusy:
            raise busyError()
        checkVolume(volumeNode)
        self._told, self._progress, self._failure, self._isWaiting = [], progress, None, True
        try:
            return self._segment(volumeNode, releasesFolder, release, modality, device)
        finally:
            self._isWaiting = False

    def _segment(
        self, volumeNode: "vtkMRMLScalarVolumeNode", releasesFolder: str, release: str, modality: str, device: str
    ) -> Outcome:
        choices = Choices(volumeNode, ModalityChoice(modality or "AUTO"), device=DeviceChoice(device))
        choices.releasesFolder = releasesFolder or readSetting(RELEASES_FOLDER)
        if modality:
            choices.inspection = Inspection(modality, 1.0, "")
        else:
            self._logic.lookAt(volumeNode, self._tell)
            choices.inspection = self._wait()
        if choices.releasesFolder:
            self._logic.listReleases(choices.releasesFolder)
            choices.releases, choices.releasesError = self._wait()
        choices.devices = self._logic.session.devices
        self._logic.segment(volumeNode, *self._decide(choices, release), choices.releasesFolder, device)
        outcome = self._wait()
        if self._failure is not None:
            raise self._failure
        if isinstance(outcome, UserError):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the worker, and delete its files; a call that waits raises ``cancelled``."""
        self._isClosed = True
        self._logic.close()

    def _decide(self, choices: Choices, release: str) -> tuple[str, str]:
        """Return modality and release; raise UserError where the tab's button could not be pressed."""
        if isinstance(choices.inspection, UserError):
            raise choices.inspection
        reason = reasonNotReady(choices)
        if reason and not choices.releases and choices.releasesError is not None:
            raise choices.releasesError
        if reason:
            raise UserError("segment.not-ready", reason, _("Say it in the call, or choose it in the Segment tab."))
        named = [found.id for found in releasesFor(choices) if release in (found.id, found.name)]
        if release and not named:
            raise UserError(
                "segment.other-model",
                _("The folder of models has no {release} for {modality} images.").format(
                    release=release, modality=modalityToUse(choices)
                ),
                _("Name one that the Segment tab lists, or none for the newest."),
            )
        return modalityToUse(choices), named[0] if named else releaseToUse(choices).id

    def _wait(self) -> object:
        while not self._told:
            if self._isClosed:
                raise cancelledError()
            slicer.app.processEvents()
            time.sleep(PAUSE_SECONDS)
        return self._told.pop()

    def _onProgress(self, progress: Progress) -> None:
        if self._progress is None:
            return
        try:
            self._progress(progress)
        except Exception as error:  # noqa: BLE001 - in an event it would be printed only, and the call wait for ever
            self._progress, self._failure = None, error
            self._logic.cancel()

    def _tell(self, told: object) -> None:
        self._told.append(told)
