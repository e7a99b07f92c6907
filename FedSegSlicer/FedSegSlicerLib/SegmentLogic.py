"""What the Segment tab does, without Qt: look at a volume, list releases, segment, bring back the result."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .SegmentationResult import ResultRow, loadResult, resultRows, showResult
from .Signal import Signal
from .VolumeExchange import VolumeExchange, checkVolume, knownModality
from .WorkerProcess import CallLater
from .WorkerSession import Request, WorkerSession, cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


class State(enum.Enum):
    """What the logic is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


@dataclass(frozen=True)
class Inspection:
    """What a volume seems to be.

    Attributes:
        modality: DICOM modality code.
        confidence: 0 to 1.
        reason: why, in words.
    """

    modality: str
    confidence: float
    reason: str


@dataclass(frozen=True)
class Release:
    """A model that can be chosen.

    Attributes:
        id: name with version; what is sent to the worker.
        name: without version.
        version: the higher the newer.
        modalities: what it segments.
        labels: the structures it finds.
        sites: how many sites trained it.
        rounds: for how many rounds.
        dice: mean validation Dice over its labels, None if there was no validation.
    """

    id: str
    name: str
    version: int
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    sites: int
    rounds: int
    dice: float | None

    @classmethod
    def fromWorker(cls, row: dict[str, Any]) -> "Release":
        """Return the release in the worker's words."""
        scores = [score["mean"] for score in row["scores"] if score["metric"] == "dice"]
        return cls(
            row["id"],
            row["name"],
            row["version"],
            tuple(row["modalities"]),
            tuple(row["labels"]),
            row["sites"],
            row["rounds"],
            sum(scores) / len(scores) if scores else None,
        )


@dataclass(frozen=True)
class Outcome:
    """A finished segmentation.

    Attributes:
        node: the result in the scene.
        rows: one a structure, with volumes in milliliters.
        release: what segmented it.
        modality: as what.
        device: where.
        seconds: for how long.
        notes: what had to be done differently, in words.
    """

    node: "vtkMRMLSegmentationNode"
    rows: tuple[ResultRow, ...]
    release: str
    modality: str
    device: str
    seconds: float
    notes: tuple[str, ...]


class SegmentLogic:
    """Segments volumes of the scene by the worker; everything is told through signals, nothing waits.

    Args:
        session: the worker.
        exchange: files to the worker.
        callLater: see CallLater.

    >>> logic.finished.connect(lambda outcome: print(outcome.rows))
    >>> logic.segment(volumeNode, "CT", "demo-CT-v3", releasesFolder, "auto")
    """

    def __init__(self, session: WorkerSession, exchange: VolumeExchange, callLater: CallLater) -> None:
        self.session = session
        self.inspected = Signal()
        self.releasesListed = Signal()
        self.progressed = Signal()
        self.finished = Signal()
        self.failed = Signal()
        self.state = State.IDLE
        self._exchange = exchange
        self._callLater = callLater
        self._request: Request | None = None
        self._run = 0
        self._inspection = 0
        self._listing = 0

    def inspect(self, volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        """Find out the volume's modality; ``inspected`` gets (Inspection or UserError) of the last volume asked for."""
        self._inspection += 1
        number = self._inspection

        def tell(found: object) -> None:
            if number == self._inspection:
                self.inspected.emit(found)

        known = knownModality(volumeNode)
        if known is not None:
            reason = _("its series says so")
            self._callLater(0, lambda: tell(Inspection(known, 1.0, reason)))
            return

        def ask(path: Path) -> None:
            self.session.request("inspect", {"image": str(path)}, onResult=answer, onError=tell)

        def answer(result: dict[str, Any]) -> None:
            guess = result["modality"]
            tell(Inspection(guess["value"], guess["confidence"], guess["reason"]))

        try:
            self._exchange.export(volumeNode, ask, tell)
        except UserError as error:
            self._callLater(0, lambda error=error: tell(error))

    def listReleases(self, folder: str) -> None:
        """List a folder's releases; ``releasesListed`` gets ([Release ...], UserError or None) of the last folder."""
        self._listing += 1
        number = self._listing

        def tell(releases: list[Release], error: UserError | None) -> None:
            if number == self._listing:
                self.releasesListed.emit(releases, error)

        def answer(result: dict[str, Any]) -> None:
            broken = [UserError(entry["code"], entry["cause"], entry["remedy"]) for entry in result["broken"]]
            tell([Release.fromWorker(row) for row in result["releases"]], broken[0] if broken else None)

        self.session.request("releases", {"folder": folder}, answer, lambda error: tell([], error))

    def segment(
        self, volumeNode: "vtkMRMLScalarVolumeNode", modality: str, release: str, releasesFolder: str, device: str
    ) -> None:
        """Segment a volume: ``progressed`` as it goes, then ``finished`` (Outcome) or ``failed`` (UserError), once.

        Args:
            volumeNode: what to segment.
            modality: DICOM modality code.
            release: name with version.
            releasesFolder: where that release is.
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

        Raises:
            UserError: the volume cannot be segmented; nothing was started.
        """
        if self.state is not State.IDLE:
            return
        checkVolume(volumeNode)
        self._run += 1
        number = self._run
        self.state = State.RUNNING
        output = self._exchange.folder() / f"result-{number}.seg.nrrd"
        params = {
            "modality": modality,
            "release": release,
            "releases": releasesFolder,
            "device": device,
            "output": str(output),
        }

        def ask(path: Path) -> None:
            if self._isCurrent(number):
                self._request = self.session.request(
                    "segment",
                    {**params, "image": str(path)},
                    onResult=lambda result: self._load(number, volumeNode, output, result),
                    onError=lambda error: self._fail(number, error),
                    onProgress=lambda progress: self._tellProgress(number, progress),
                )

        self.progressed.emit(Progress(0.0, _("handing over the volume"), None))
        self._exchange.export(volumeNode, ask, lambda error: self._fail(number, error))

    def cancel(self) -> None:
        """Cancel what is running; ``failed`` follows within two seconds with code ``cancelled``."""
        if self.state is not State.RUNNING:
            return
        self.state = State.CANCELLING
        if self._request is None:
            number = self._run
            self._callLater(0, lambda: self._fail(number, cancelledError()))
        else:
            self.session.cancel(self._request)

    def close(self) -> None:
        """End the worker, delete the files, and say nothing more."""
        self._run += 1
        self._inspection += 1
        self._listing += 1
        self.state, self._request = State.IDLE, None
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
        self.state, self._request = State.IDLE, None
        self.failed.emit(error)

    def _load(self, number: int, volumeNode: "vtkMRMLScalarVolumeNode", path: Path, result: dict[str, Any]) -> None:
        if number != self._run:
            return
        if not slicer.mrmlScene.IsNodePresent(volumeNode):
            self._fail(
                number,
                UserError("volume.gone", _("The volume was removed meanwhile."), _("Load it again to segment it.")),
            )
            return
        self.progressed.emit(Progress(1.0, _("showing the result"), None))
        try:
            node = loadResult(path, result["sha256"], volumeNode, result["release"])
        except UserError as error:
            self._fail(number, error)
            return
        finally:
            path.unlink(missing_ok=True)
        # Surfaces are made on the GUI thread, the only one VTK allows: after the slices were given a chance to draw.
        self._callLater(0, lambda: self._show(node, volumeNode))
        self.state, self._request = State.IDLE, None
        rows = tuple(resultRows(node, result["segments"]))
        self.finished.emit(
            Outcome(
                node, rows, result["release"], result["modality"], result["device"], result["seconds"],
                tuple(result["notes"]),
            )
        )  # fmt: skip

    @staticmethod
    def _show(node: "vtkMRMLSegmentationNode", volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        scene = slicer.mrmlScene
        if scene.IsNodePresent(node) and scene.IsNodePresent(volumeNode):
            showResult(node, volumeNode)
