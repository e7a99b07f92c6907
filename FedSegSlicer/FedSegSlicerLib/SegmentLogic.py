"""What the Segment tab does, without Qt: look at a volume, list releases, segment, bring back the result."""

import enum
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .ResultImport import ResultImport
from .ResultPlace import ResultPlace, VolumePlace, placeOf
from .ResultRecord import outcomeOf
from .SegmentationResult import Former
from .SegmentExport import SegmentExport
from .SegmentTypes import Expectation, Inspection, Release
from .Signal import Signal
from .VolumeExchange import VolumeExchange, checkVolume, goneError, knownModality, ofTemporaryFolder
from .WorkerProcess import CallLater
from .WorkerSession import Request, WorkerSession, cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode


class State(enum.Enum):
    """What the logic is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


class SegmentLogic:
    """Segments volumes of the scene by the worker; everything is told through signals, nothing waits.

    Args:
        session: the worker.
        exchange: files to the worker.
        callLater: see CallLater.
        site: returns the folder of this computer's site, whose coordinator's releases are trusted and all others
            refused; ``""`` where there is none: then any release that is whole can be used, and none is trusted.
            Raises UserError where that is not known: then none is used.

    >>> logic.finished.connect(lambda outcome: print(outcome.rows))
    >>> logic.segment(volumeNode, "CT", "demo-CT-v3", releasesFolder, "auto")
    """

    def __init__(
        self, session: WorkerSession, exchange: VolumeExchange, callLater: CallLater,
        site: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        self.session = session
        self.inspected = Signal()
        self.expected = Signal()
        self.releasesListed = Signal()
        self.progressed = Signal()
        self.finished = Signal()
        self.failed = Signal()
        self.state = State.IDLE
        self._exchange = exchange
        self._callLater = callLater
        self._site = site
        self._reservedBy: object | None = None
        self._image: Path | None = None
        self._request: Request | None = None
        self._import: ResultImport | None = None
        self._formers: dict[str, tuple[ResultPlace, Former]] = {}
        self._run = 0
        self._inspection = 0
        self._expecting = 0
        self._listing = 0

    @property
    def isBusy(self) -> bool:
        """Whether something is being segmented, or somebody has reserved the logic to segment several volumes."""
        return self.state is not State.IDLE or self._reservedBy is not None

    def reserve(self, owner: object) -> None:
        """Let nobody but ``owner`` segment until ``release`` is called.

        Raises:
            UserError: ``segment.busy``.
        """
        if self.isBusy:
            raise busyError()
        self._reservedBy = owner

    def release(self, owner: object) -> None:
        """Let others segment again."""
        if self._reservedBy is owner:
            self._reservedBy = None

    def inspect(self, volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        """Find out the volume's modality; ``inspected`` gets (Inspection or UserError) of the last volume asked for."""
        self._inspection += 1
        number = self._inspection

        def tell(found: object) -> None:
            if number == self._inspection:
                self.inspected.emit(found)

        self.lookAt(volumeNode, tell)

    def lookAt(
        self, volumeNode: "vtkMRMLScalarVolumeNode", tell: Callable[[Inspection | UserError], None],
        known: str | None = None,
    ) -> None:  # fmt: skip
        """Find out a volume's modality, unless it is ``known``, and tell it to nobody but ``tell``."""
        known = known or knownModality(volumeNode)
        if known is not None:
            reason = _("its series says so")
            self._callLater(0, lambda: tell(Inspection(known, 1.0, reason)))
            return

        def ask(path: Path) -> None:
            def answer(result: dict[str, Any]) -> None:
                guess = result["modality"]
                end(Inspection(guess["value"], guess["confidence"], guess["reason"]))

            def end(found: Inspection | UserError) -> None:
                self._exchange.letGo(path)
                tell(found)

            self._exchange.keep(path)
            self.session.request("inspect", {"image": str(path)}, onResult=answer, onError=end)

        try:
            self._exchange.export(volumeNode, ask, tell)
        except UserError as error:
            self._callLater(0, lambda error=error: tell(error))

    def expect(
        self, volumeNode: "vtkMRMLScalarVolumeNode", modality: str, release: str, releasesFolder: str, device: str
    ) -> None:
        """Ask how long a volume will take; ``expected`` gets (Expectation or None) of the last question."""
        self._expecting += 1
        number = self._expecting
        size = volumeNode.GetImageData().GetDimensions()
        order = {"modality": modality, "release": release, "releases": releasesFolder, "device": device,
                 "size": list(size), "spacing": list(volumeNode.GetSpacing())}  # fmt: skip

        def tell(found: Expectation | None) -> None:
            if number == self._expecting:
                self.expected.emit(found)

        self.session.request(
            "expect", order, lambda result: tell(Expectation.fromWorker(result)), lambda _error: tell(None)
        )

    def listReleases(self, folder: str) -> None:
        """List a folder's releases; ``releasesListed`` gets ([Release ...], UserError or None) of the last folder."""
        self._listing += 1
        number = self._listing

        def tell(releases: list[Release], error: UserError | None) -> None:
            if number == self._listing:
                self.releasesListed.emit(releases, error)

        def answer(result: dict[str, Any]) -> None:
            broken = [_refusal(entry) for entry in result["broken"]]
            tell([Release.fromWorker(row) for row in result["releases"]], broken[0] if broken else None)

        def ask(onError: Callable[[UserError], None]) -> None:
            try:
                order = {"folder": folder, **self._trust()}
            except UserError as error:
                self._callLater(0, lambda error=error: tell([], error))
                return
            self.session.request("releases", order, answer, onError)

        def askOnceMore(error: UserError) -> None:
            """What else the worker was doing may have ended it, as where that was cancelled."""
            if error.code == "worker.ended" and number == self._listing:
                ask(lambda error: tell([], error))
            else:
                tell([], error)

        ask(askOnceMore)

    def _trust(self) -> dict[str, str]:
        site = self._site()
        return {"site": site} if site else {}

    def segment(
        self, volumeNode: "vtkMRMLScalarVolumeNode", modality: str, release: str, releasesFolder: str, device: str,
        place: ResultPlace | None = None, owner: object = None,
    ) -> None:  # fmt: skip
        """Segment a volume: ``progressed`` as it goes, then ``finished`` (Outcome) or ``failed`` (UserError), once.

        Args:
            volumeNode: what to segment.
            modality: DICOM modality code.
            release: name with version.
            releasesFolder: where that release is.
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
            place: where the result goes; None puts it beside the volume.
            owner: who has reserved the logic, if somebody has.

        Raises:
            UserError: the volume cannot be segmented, ``segment.busy``, or ``site.unreachable``; nothing was started.
        """
        if self.state is not State.IDLE or self._reservedBy is not owner:
            raise busyError()
        checkVolume(volumeNode)
        place = place or VolumePlace(volumeNode)
        if not place.isPresent():
            raise goneError()
        folder, trust = self._exchange.folder(), self._trust()
        self._run += 1
        number = self._run
        self.state = State.RUNNING
        pieces = folder / f"result-{number}"
        params = {
            "modality": modality,
            "release": release,
            "releases": releasesFolder,
            "device": device,
            "pieces": str(pieces),
            **trust,
        }

        def ask(path: Path) -> None:
            if self._isCurrent(number):
                self._image = path
                self._exchange.keep(path)
                self._request = self.session.request(
                    "segment",
                    {**params, "image": str(path)},
                    onResult=lambda result: self._load(number, volumeNode, place, pieces, result),
                    onError=lambda error: self._fail(number, ofTemporaryFolder(error)),
                    onProgress=lambda progress: self._tellProgress(number, progress),
                )

        try:
            self.progressed.emit(Progress(0.0, _("handing over the volume"), None))
            self._exchange.export(volumeNode, ask, lambda error: self._fail(number, error))
        except Exception:  # also of whoever is told
            self._end()
            raise

    def cancel(self) -> None:
        """Cancel what is running; ``failed`` follows within two seconds with code ``cancelled``."""
        if self.state is not State.RUNNING or (self._import is not None and self._import.isPlaced):
            return  # there is nothing to cancel, or the result is in the scene already
        self.state = State.CANCELLING
        if self._import is not None:
            self._import.stop()
        if self._request is None:
            number = self._run
            self._callLater(0, lambda: self._fail(number, cancelledError()))
        else:
            self.session.cancel(self._request)

    def canUndo(self, volumeNode: "vtkMRMLScalarVolumeNode | None") -> bool:
        """Return whether ``undo`` can restore what this volume's result replaced."""
        if volumeNode is None or self.isBusy:
            return False
        place = placeOf(volumeNode)
        return place.key() in self._formers and place.result() is not None

    def undoRemoves(self, volumeNode: "vtkMRMLScalarVolumeNode") -> bool:
        """Return whether ``undo`` removes the result for good, since there was none before."""
        return self.canUndo(volumeNode) and self._formers[placeOf(volumeNode).key()][1].segmentation is None

    def undo(self, volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        """Restore what was there before the last run, with all the user did to it; once more brings the result back.

        Where there was no result before, the result is removed.
        """
        if not self.canUndo(volumeNode):
            return
        key = placeOf(volumeNode).key()
        place, former = self._formers.pop(key)
        back = place.undo(former)
        if back is not None:
            self._formers[key] = (place, back)

    def export(
        self, volumeNode: "vtkMRMLScalarVolumeNode", output: Path, onDone: Callable[[], None],
        onError: Callable[[UserError], None],
    ) -> None:  # fmt: skip
        """Write a volume's result as it is now to a file (``.seg.nrrd``, ``.nii.gz``, ``.nrrd``, ``.dcm``)."""
        node = placeOf(volumeNode).result()
        if node is None:
            error = UserError("export.empty", _("There is no segment to export."), _("Segment the volume first."))
            self._callLater(0, lambda: onError(error))
            return
        SegmentExport(self.session, self._callLater).export(node, volumeNode, output, onDone, onError)

    def forget(self) -> None:
        """Forget what results replaced, and show no further what has just come, as when the scene is closed."""
        self._formers.clear()
        if self._import is not None and self._import.isPlaced:
            self._fail(self._run, cancelledError())

    def close(self) -> None:
        """End the worker, delete the files, and say nothing more."""
        self._run += 1
        self._inspection += 1
        self._expecting += 1
        self._listing += 1
        if self._import is not None:
            self._import.stop()
        self.state, self._request, self._import = State.IDLE, None, None
        self._formers.clear()
        self.session.close()
        self._exchange.clear()

    def _isCurrent(self, number: int) -> bool:
        return number == self._run and self.state is State.RUNNING

    def _tellProgress(self, number: int, progress: Progress) -> None:
        if self._isCurrent(number):
            self.progressed.emit(progress)

    def _fail(self, number: int, error: UserError) -> None:
        if number != self._run or self.state is State.IDLE:
            return
        self._end()
        self.failed.emit(error)

    def _load(
        self, number: int, volumeNode: "vtkMRMLScalarVolumeNode", place: ResultPlace, pieces: Path,
        result: dict[str, Any],
    ) -> None:  # fmt: skip
        if not self._isCurrent(number):
            return
        self._request = None
        self.progressed.emit(Progress(1.0, _("showing the result"), None))
        self._import = ResultImport(
            self._callLater,
            volumeNode,
            place,
            pieces,
            result,
            lambda former: self._finish(place, former, result),
            lambda error: self._fail(number, error),
        )

    def _finish(self, place: ResultPlace, former: Former, result: dict[str, Any]) -> None:
        if not place.isPresent():
            self._fail(self._run, goneError())
            return
        self._end()
        if place.result() is not None:
            self._formers[place.key()] = (place, former)
        self.finished.emit(outcomeOf(former.node, result, place.key(), result["trusted"]))

    def _end(self) -> None:
        self.state, self._request = State.IDLE, None
        if self._image is not None:
            self._exchange.letGo(self._image)
            self._image = None
        if self._import is not None:
            self._import.stop()
            self._import = None
        shutil.rmtree(self._exchange.folder() / f"result-{self._run}", ignore_errors=True)


def busyError() -> UserError:
    """Return the error of a segmentation that is asked for while another one runs."""
    return UserError(
        "segment.busy", _("Another volume is being segmented."), _("Wait until that is finished, or cancel it.")
    )


def _refusal(entry: dict[str, str]) -> UserError:
    """Return why a release is not listed, from the worker's {name, code, cause, remedy}."""
    remedy = entry["remedy"]
    if entry["code"] == "release.signer-unknown":
        remedy = _("It is not used: your site takes models of its own coordinator only. Ask where it came from.")
    return UserError(entry["code"], entry["cause"], remedy)
