"""Several volumes, or all moments of a 4-D sequence, segmented one after the other."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .ResultPlace import FramePlace, ResultPlace, VolumePlace
from .SampleVolumes import isSample
from .SegmentLogic import SegmentLogic, State
from .SegmentTypes import Inspection, Outcome
from .Signal import Signal
from .VolumeExchange import isImage, knownModality
from .WordsForPeople import modalityName
from .WorkerSession import cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

Decide = Callable[[Inspection], tuple[str, str]]
"""From what a volume seems to be to the modality and the release to use; raises UserError if it cannot be said."""

MOST_MOMENTS = 6
"""How many moments of a sequence are named that a person should look at."""


class Status(enum.Enum):
    """How far an entry is."""

    LISTED = "listed"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class Entry:
    """One volume, or one sequence with all its moments.

    Attributes:
        name: what people read.
        parts: the volumes, each with where its result goes.
        volumeId: the node that people choose.
        known: what its series says it is, DICOM modality code.
        status: how far it is.
        modalities: what its parts were taken for, DICOM modality codes.
        done: how many parts were segmented.
        toCheck: structures, of all parts, that a person should look at, and parts that need a look as a whole.
        momentsToCheck: numbers, from 1, of the parts these are in.
        error: the last error.
    """

    name: str
    parts: list[tuple["vtkMRMLScalarVolumeNode", ResultPlace]]
    volumeId: str = ""
    known: str | None = None
    status: Status = Status.LISTED
    modalities: list[str] = field(default_factory=list)
    done: int = 0
    toCheck: int = 0
    momentsToCheck: list[int] = field(default_factory=list)
    error: UserError | None = field(default=None)

    def again(self) -> "Entry":
        """Return it as it is before it is segmented."""
        return Entry(self.name, self.parts, self.volumeId, self.known, Status.WAITING)

    def asNow(self, now: "Entry") -> "Entry":
        """Return what became of it with the name, the parts and the series that ``now`` has."""
        isSame = len(self.parts) == len(now.parts)
        return replace(self, name=now.name, parts=now.parts, known=now.known) if isSame else now

    def words(self) -> str:
        """Return how far it is and what it was taken for, in words; ``""`` where nobody has asked for it."""
        if self.status is Status.LISTED:
            return ""
        hasFailed = self.status is Status.FAILED
        counted = _("{done} of {all} done") if hasFailed else _("{done} of {all}")
        counted = counted.format(done=self.done, all=len(self.parts)) if len(self.parts) > 1 else ""
        words = {
            Status.WAITING: _("waiting"),
            Status.RUNNING: _("running"),
            Status.CANCELLED: _("cancelled"),
            Status.DONE: _("done"),
            Status.FAILED: self.error.cause if self.error is not None else "",
        }[self.status]
        if self.modalities and not hasFailed:
            named = ", ".join(modalityName(modality) for modality in self.modalities)
            words = _("{state}, as {modality}").format(state=words, modality=named)
        told = [counted, words] if hasFailed else [f"{words} ({counted})" if counted else words]
        *first, last = [sentence for sentence in (*told, *self._checkWords()) if sentence]
        return ". ".join([*(sentence.removesuffix(".") for sentence in first), last])

    def _checkWords(self) -> list[str]:
        if not self.toCheck:
            return []
        if len(self.parts) == 1:
            return [_("{count} to check").format(count=self.toCheck)]
        numbers = ", ".join(str(number) for number in self.momentsToCheck[:MOST_MOMENTS])
        numbers += ", …" if len(self.momentsToCheck) > MOST_MOMENTS else ""
        return [_("{count} to check, in moments {numbers}").format(count=self.toCheck, numbers=numbers)]


def entriesOfScene() -> list[Entry]:
    """Return what can be queued: every image of the scene but kept samples, and sequences with all their moments."""
    scene, entries = slicer.mrmlScene, []
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        if not isImage(node) or isSample(node):
            continue
        parts = _frames(node) or [(node, VolumePlace(node))]
        entries.append(Entry(node.GetName(), parts, node.GetID(), knownModality(node)))
    return entries


def _frames(proxy: "vtkMRMLScalarVolumeNode") -> list[tuple["vtkMRMLScalarVolumeNode", ResultPlace]]:
    scene = slicer.mrmlScene
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(number, "vtkMRMLSequenceBrowserNode")
        images = browser.GetSequenceNode(proxy)
        if images is not None:
            count = images.GetNumberOfDataNodes()
            return [(images.GetNthDataNode(index), FramePlace(browser, images, index)) for index in range(count)]
    return []


class SegmentQueue:
    """Runs entries through a SegmentLogic; what fails or is cancelled does not stop the others.

    Args:
        logic: segments one volume at a time.
    """

    def __init__(self, logic: SegmentLogic) -> None:
        self.logic = logic
        self.changed = Signal()
        self.entries: list[Entry] = []
        self.isRunning = False
        self._waiting: list[tuple[Entry, int]] = []
        self._current: Entry | None = None
        self._part = 0
        self._decide: Decide | None = None
        self._order: tuple[str, str] = ("", "")
        logic.finished.connect(self._onFinished)
        logic.failed.connect(self._onFailed)

    def start(self, entries: list[Entry], decide: Decide, releasesFolder: str, device: str) -> None:
        """Begin; ``changed`` tells of every step, and ``isRunning`` becomes False after the last one.

        Nobody else can segment meanwhile.

        Raises:
            UserError: ``segment.busy``.
        """
        if not entries:
            return
        self.logic.reserve(self)
        self.entries, self._decide, self._order = entries, decide, (releasesFolder, device)
        self._waiting = [(entry, part) for entry in entries for part in range(len(entry.parts))]
        self.isRunning = True
        self._next()

    def cancelAll(self) -> None:
        """Cancel what is running and what waits."""
        for entry, _part in self._waiting:
            entry.status = Status.CANCELLED
        self._waiting.clear()
        self.cancelThis()

    def cancelThis(self) -> None:
        """Cancel what is running and go on with the next."""
        if self.logic.state is State.IDLE:
            self._failCurrent(cancelledError())  # the volume is still being looked at
        else:
            self.logic.cancel()

    def _next(self) -> None:
        self._current = None
        if not self._waiting:
            self.isRunning = False
            self.logic.release(self)
            self.changed.emit()
            return
        entry, part = self._waiting.pop(0)
        self._current, self._part = entry, part
        entry.status = Status.RUNNING
        self.changed.emit()
        volumeNode, place = entry.parts[part]
        self.logic.lookAt(volumeNode, lambda found: self._onLooked(entry, volumeNode, place, found), entry.known)

    def _onLooked(
        self, entry: Entry, volumeNode: "vtkMRMLScalarVolumeNode", place: ResultPlace, found: Inspection | UserError
    ) -> None:
        if self._current is not entry:
            return
        try:
            if isinstance(found, UserError):
                raise found
            modality, release = self._decide(found)
            self.logic.segment(volumeNode, modality, release, *self._order, place=place, owner=self)
        except UserError as error:
            self._failCurrent(error)
            return
        if modality not in entry.modalities:
            entry.modalities.append(modality)
        self.changed.emit()

    def _onFinished(self, outcome: Outcome) -> None:
        entry = self._current
        if entry is None:
            return
        entry.done += 1
        toCheck = sum(bool(row.checks) for row in outcome.rows) + bool(outcome.checks)
        if toCheck:
            entry.toCheck += toCheck
            entry.momentsToCheck.append(self._part + 1)
        if not any(waiting is entry for waiting, _part in self._waiting):
            entry.status = Status.DONE if entry.error is None else Status.FAILED
        self._next()

    def _onFailed(self, error: UserError) -> None:
        if self._current is not None:
            self._failCurrent(error)

    def _failCurrent(self, error: UserError) -> None:
        entry = self._current
        if entry is None:
            return
        entry.error = error
        entry.status = Status.CANCELLED if error.isCancelled else Status.FAILED
        # A sequence is cancelled, and was removed, with all its moments.
        if error.isCancelled or not entry.parts[self._part][1].isPresent():
            self._waiting = [(waiting, part) for waiting, part in self._waiting if waiting is not entry]
        self._next()
