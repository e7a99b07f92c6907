"""Several volumes, or all moments of a 4-D sequence, segmented one after the other."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .ResultPlace import FramePlace, ResultPlace, VolumePlace
from .SegmentLogic import SegmentLogic, State
from .SegmentTypes import Inspection, Outcome
from .Signal import Signal
from .WorkerSession import cancelledError

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

Decide = Callable[[Inspection], tuple[str, str]]
"""From what a volume seems to be to the modality and the release to use; raises UserError if it cannot be said."""


class Status(enum.Enum):
    """How far an entry is."""

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
        status: how far it is.
        done: how many parts were segmented.
        toCheck: structures, of all parts, that a person should look at, and parts that need a look as a whole.
        error: the last error.
    """

    name: str
    parts: list[tuple["vtkMRMLScalarVolumeNode", ResultPlace]]
    status: Status = Status.WAITING
    done: int = 0
    toCheck: int = 0
    error: UserError | None = field(default=None)

    def words(self) -> str:
        """Return how far it is, in words."""
        if self.status is Status.FAILED:
            return self.error.cause
        counted = _("{done} of {all}").format(done=self.done, all=len(self.parts)) if len(self.parts) > 1 else ""
        words = {
            Status.WAITING: _("waiting"),
            Status.RUNNING: _("running"),
            Status.CANCELLED: _("cancelled"),
            Status.DONE: _("done, {count} to check").format(count=self.toCheck) if self.toCheck else _("done"),
        }[self.status]
        return f"{words} ({counted})" if counted else words


def entriesOfScene() -> list[Entry]:
    """Return what can be queued: every image of the scene, and 4-D sequences with all their moments."""
    scene, entries = slicer.mrmlScene, []
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        if node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetHideFromEditors():
            continue
        entries.append(Entry(node.GetName(), _frames(node) or [(node, VolumePlace(node))]))
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
        self._decide: Decide | None = None
        self._order: tuple[str, str] = ("", "")
        logic.finished.connect(self._onFinished)
        logic.failed.connect(self._onFailed)

    def start(self, entries: list[Entry], decide: Decide, releasesFolder: str, device: str) -> None:
        """Begin; ``changed`` tells of every step, and ``isRunning`` becomes False after the last one."""
        if self.isRunning or self.logic.state is not State.IDLE or not entries:
            return
        self.entries, self._decide, self._order = entries, decide, (releasesFolder, device)
        self._waiting = [(entry, part) for entry in entries for part in range(len(entry.parts))]
        self.isRunning = True
        self._next()

    def cancelAll(self) -> None:
        """Cancel what is running and what waits; ``logic.cancel`` cancels only what is running."""
        for entry, _part in self._waiting:
            entry.status = Status.CANCELLED
        self._waiting.clear()
        if self.logic.state is State.IDLE:
            self._failCurrent(cancelledError())  # the volume is still being looked at
        else:
            self.logic.cancel()

    def _next(self) -> None:
        self._current = None
        if not self._waiting:
            self.isRunning = False
            self.changed.emit()
            return
        entry, part = self._waiting.pop(0)
        self._current = entry
        entry.status = Status.RUNNING
        self.changed.emit()
        volumeNode, place = entry.parts[part]
        self.logic.lookAt(volumeNode, lambda found: self._onLooked(entry, volumeNode, place, found))

    def _onLooked(
        self, entry: Entry, volumeNode: "vtkMRMLScalarVolumeNode", place: ResultPlace, found: Inspection | UserError
    ) -> None:
        if self._current is not entry:
            return
        try:
            if isinstance(found, UserError):
                raise found
            modality, release = self._decide(found)
            self.logic.segment(volumeNode, modality, release, *self._order, place=place)
        except UserError as error:
            self._failCurrent(error)

    def _onFinished(self, outcome: Outcome) -> None:
        entry = self._current
        if entry is None:
            return
        entry.done += 1
        entry.toCheck += sum(bool(row.checks) for row in outcome.rows) + bool(outcome.checks)
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
        if error.isCancelled:  # a sequence is cancelled with all its moments
            self._waiting = [(waiting, part) for waiting, part in self._waiting if waiting is not entry]
        self._next()
