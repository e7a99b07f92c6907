"""What a viewer needs of a segmentation, as small files: it can take one between two frames and never holds still."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from FedSegCore.common.progress import Progress
from FedSegCore.volumes.labels import Label
from FedSegCore.volumes.segmentation_file import segment_id, terminology_entry
from FedSegCore.volumes.surfaces import Surface, surface_of
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import unwritable

_Box = tuple[slice, slice, slice]


def write_pieces(labels: Volume, shown: Sequence[Label], folder: Path, progress: Progress) -> dict[str, Any]:
    """Write a label map and the surfaces of its structures as ``.npy`` files.

    Places are in voxel indices, so that whoever shows them uses the image's own idea of where its voxels lie.

    Args:
        labels: (1, k, j, i) of contract values.
        shown: the labels that become segments, also where they are empty.
        folder: new, or empty; made if it is not there.
        progress: told of every structure; cancels between them.

    Returns:
        ``labels``: None if nothing was found, else {file, start}: uint8 (k, j, i), cropped to what was found, from
        voxel ``start`` (i, j, k) on. ``segments``: one for each label, {id, name, value, color, terminology, center,
        surface}; ``center`` is the (i, j, k) of the structure's voxel nearest to their mean and ``surface`` {points,
        triangles, normals} (file names, see ``Surface``); both are None where the structure was not found.

    Raises:
        CannotDoHereError: ``file.unwritable``.
        CancelledError: the user cancelled.
    """
    array = labels.array[0]
    boxes: list[_Box | None] = ndimage.find_objects(array)
    try:
        folder.mkdir(exist_ok=True)
        whole = _around([box for box in boxes if box is not None])
        segments = []
        for number, label in enumerate(shown):
            progress.update(number / len(shown), f"surface of {label.name}")
            box = boxes[label.value - 1] if label.value <= len(boxes) else None
            segments.append(_segment(array, box, label, folder))
        found = None
        if whole is not None:
            np.save(folder / "labels.npy", np.ascontiguousarray(array[whole], np.uint8))
            found = {"file": "labels.npy", "start": [part.start for part in reversed(whole)]}
    except OSError as error:
        raise unwritable() from error
    return {"labels": found, "segments": segments}


def _around(boxes: Sequence[_Box]) -> _Box | None:
    if not boxes:
        return None
    k, j, i = (slice(min(b[n].start for b in boxes), max(b[n].stop for b in boxes)) for n in range(3))
    return k, j, i


def _segment(array: npt.NDArray[Any], box: _Box | None, label: Label, folder: Path) -> dict[str, Any]:
    facts = {
        "id": segment_id(label),
        "name": label.name,
        "value": label.value,
        "color": list(label.colour),
        "terminology": terminology_entry(label),
        "center": None,
        "surface": None,
    }
    if box is None:
        return facts
    mask = array[box] == label.value
    start = [part.start for part in reversed(box)]
    surface = surface_of(mask)
    assert surface is not None  # the box was drawn around at least one voxel
    return {**facts, "center": _center(mask, start), "surface": _save(surface, start, label.value, folder)}


def _center(mask: npt.NDArray[np.bool_], start: Sequence[int]) -> list[int]:
    """Return (i, j, k) of the voxel of ``mask`` nearest to the mean of them all: inside, also of a hollow structure."""
    places = np.argwhere(mask)
    nearest = places[np.argmin(((places - places.mean(0)) ** 2).sum(1))]
    return [int(first + place) for first, place in zip(start, nearest[::-1], strict=True)]


def _save(surface: Surface, start: Sequence[int], value: int, folder: Path) -> dict[str, str]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": surface.points + np.array(start, np.float32),
        "triangles": surface.triangles,
        "normals": surface.normals,
    }
    files = {name: f"{name}-{value}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(folder / files[name], array)
    return files
