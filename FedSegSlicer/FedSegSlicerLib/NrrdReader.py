"""Volumes the worker wrote, read on a thread of their own: Slicer's storage nodes would hold up the GUI."""

import logging
from collections.abc import Callable
from pathlib import Path

from slicer.i18n import tr as _

from .Background import onThread
from .Errors import UserError
from .VolumeExchange import VolumeSnapshot
from .WorkerProcess import CallLater

LONGEST_HEADER = 64 * 1024


def readNrrd(path: Path) -> VolumeSnapshot:
    """Return the volume in an uncompressed float32 NRRD file with attached voxels, as the worker writes them.

    Raises:
        ValueError: it is not such a file, or it is cut short.
        OSError: it cannot be read.
    """
    import numpy as np

    with path.open("rb") as file:
        head, separator, _rest = file.read(LONGEST_HEADER).partition(b"\n\n")
        if not separator or not head.startswith(b"NRRD"):
            raise ValueError("no NRRD header")
        lines = [line for line in head.decode("ascii").splitlines()[1:] if ": " in line and not line.startswith("#")]
        fields = dict(line.split(": ", 1) for line in lines)
        wanted = {"type": "float", "encoding": "raw", "space": "left-posterior-superior", "endian": "little"}
        if any(fields.get(name) != value for name, value in wanted.items()):
            raise ValueError("not as the worker writes it")
        sizes = [int(size) for size in fields.get("sizes", "").split()]
        file.seek(len(head) + len(separator))
        voxels = np.fromfile(file, "<f4")
    array = voxels.reshape(sizes[::-1])
    axes = [_vector(text) for text in fields.get("space directions", "").split() if text != "none"]
    columns = [*axes, _vector(fields.get("space origin", ""))]
    rows = tuple(tuple(column[row] for column in columns) for row in range(3))
    return VolumeSnapshot(array, (*rows, (0.0, 0.0, 0.0, 1.0)))


def readInBackground(
    path: Path, callLater: CallLater, onDone: Callable[[VolumeSnapshot], None], onError: Callable[[UserError], None]
) -> None:
    """Read a file on a thread, then call back in the event loop."""
    onThread(callLater, lambda: readNrrd(path), onDone, onError, _unreadable)


def readInTurn(
    paths: list[Path],
    callLater: CallLater,
    onEach: Callable[[Path, VolumeSnapshot], bool],
    onDone: Callable[[], None],
    onError: Callable[[UserError], None],
) -> None:
    """Read files one after the other, with events in between.

    Args:
        paths: the files.
        callLater: see CallLater.
        onEach: called with each; False ends the reading, and nobody is called back any more.
        onDone: called after the last.
        onError: called instead if one cannot be read.
    """
    if not paths:
        onDone()
        return

    def put(snapshot: VolumeSnapshot) -> None:
        if onEach(paths[0], snapshot):
            callLater(0, lambda: readInTurn(paths[1:], callLater, onEach, onDone, onError))

    readInBackground(paths[0], callLater, put, onError)


def _unreadable(error: Exception) -> UserError:
    logging.warning("FedSegSlicer: a sample could not be read: %s", type(error).__name__)
    return UserError(
        "sample.unreadable",
        _("A sample could not be read."),
        _("Try again; if it happens again, look whether the temporary folder's disk is full."),
    )


def _vector(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.strip("()").split(","))
    if len(values) != 3:
        raise ValueError("a direction has not three parts")
    return values
