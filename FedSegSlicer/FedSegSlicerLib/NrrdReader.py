"""Volumes the worker wrote, read on a thread of their own: Slicer's storage nodes would hold up the GUI."""

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .Background import onThread
from .Errors import UserError
from .VolumeExchange import VolumeSnapshot
from .WorkerProcess import CallLater

LONGEST_HEADER = 64 * 1024


def readNrrd(path: Path) -> VolumeSnapshot:
    """Return the volume in an uncompressed float32 NRRD file with attached voxels, as the worker writes them.

    The voxels are read into VTK's memory, so that they need not be copied into the scene.

    Raises:
        ValueError: it is not such a file, or it is cut short.
        OSError: it cannot be read.
    """
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
        scalars = _readScalars(file, sizes)
    array = vtk_to_numpy(scalars).reshape(sizes[::-1])
    axes = [_vector(text) for text in fields.get("space directions", "").split() if text != "none"]
    columns = [*axes, _vector(fields.get("space origin", ""))]
    rows = tuple(tuple(column[row] for column in columns) for row in range(3))
    return VolumeSnapshot(array, (*rows, (0.0, 0.0, 0.0, 1.0)), scalars)


def _readScalars(file: BinaryIO, sizes: list[int]) -> vtk.vtkFloatArray:
    """Return what is left of the file; ``sizes`` of the axes, the fastest first, of which a fourth is color's."""
    voxels, rest = math.prod(sizes), os.fstat(file.fileno()).st_size - file.tell()
    if len(sizes) not in (3, 4) or 4 * voxels != rest or not voxels:
        raise ValueError("the file's size is not that of its voxels")
    components = sizes[0] if len(sizes) == 4 else 1
    scalars = vtk.vtkFloatArray()
    scalars.SetNumberOfComponents(components)
    scalars.SetNumberOfTuples(voxels // components)
    if file.readinto(memoryview(vtk_to_numpy(scalars)).cast("B")) != rest:
        raise ValueError("the file was cut short")
    return scalars


def readInBackground(
    path: Path, callLater: CallLater, onDone: Callable[[VolumeSnapshot], None], onError: Callable[[UserError], None]
) -> None:
    """Read a file on a thread, then call back in the event loop."""
    onThread(callLater, lambda: readNrrd(path), onDone, onError, unreadable)


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


def unreadable(error: Exception) -> UserError:
    """Return the error of a sample that the worker wrote and nobody can read."""
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
