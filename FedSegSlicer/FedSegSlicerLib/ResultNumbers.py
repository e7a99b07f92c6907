"""Volumes and mean intensities of a result as it is now, for one that was edited since the worker measured it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .ResultPieces import SLAB_BYTES
from .SegmentationResult import ResultRow
from .Segments import LabelMap, colorOf, imageOf, readLabelMap

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkOrientedImageData, vtkSegmentation

UNCHANGED_ML = 1e-3
"""A structure whose volume differs by less is taken for the worker's own, with its marks."""


@dataclass(frozen=True)
class SharedMap:
    """A label map, and segment ID → value of the segments that share it."""

    labelMap: LabelMap
    values: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """A segment's size (``ResultRow``) and the image's mean in it; None where empty, on another grid, in color."""

    volumeMl: float | None
    meanIntensity: float | None
    areaMm2: float | None
    voxels: int


def stateOf(segmentation: "vtkSegmentation") -> tuple[tuple[str, int], ...]:
    """Return what is another as soon as a voxel, or the list of segments, has been changed; names do not count."""
    return tuple((segmentId, _time(imageOf(segmentation, segmentId))) for segmentId in segmentation.GetSegmentIDs())


def sharedMapsOf(segmentation: "vtkSegmentation") -> list[SharedMap]:
    """Return every label map of a segmentation once.

    Raises:
        ValueError: a segment has no label map.
    """
    found: dict[vtkOrientedImageData, dict[str, int]] = {}
    for segmentId in segmentation.GetSegmentIDs():
        image = imageOf(segmentation, segmentId)
        if image is None:
            raise ValueError("no label map")
        found.setdefault(image, {})[segmentId] = segmentation.GetSegment(segmentId).GetLabelValue()
    return [SharedMap(readLabelMap(image), values) for image, values in found.items()]


def measure(maps: Sequence[SharedMap], image: "np.ndarray", ijkToRas: "np.ndarray") -> dict[str, Measured]:
    """Return segment ID → its measures; touches neither Qt nor the scene, for another thread.

    Args:
        maps: of the segmentation.
        image: intensities (k, j, i); of a color image (k, j, i, c), whose values have no mean.
        ijkToRas: the image's, 4x4.

    Raises:
        ValueError: a label map has negative values.
    """
    import numpy as np

    found = {}
    for shared in maps:
        labelMap, length = shared.labelMap, max(shared.values.values()) + 1
        spacing = np.linalg.norm(labelMap.ijkToRas[:3, :3], axis=0)
        counts, _none = _totals(labelMap.voxels, length)
        inside, sums = np.zeros(length), np.zeros(length)
        placed = labelMap.onGrid(ijkToRas) if image.ndim == 3 else None
        if placed is not None:
            here, there = placed.overlap(image.shape)
            inside, sums = _totals(placed.voxels[here], length, image[there])
        for segmentId, value in shared.values.items():
            mean = float(sums[value] / inside[value]) if inside[value] else None
            volume, area = _sizeOf(int(counts[value]), spacing, image.shape[:3])
            found[segmentId] = Measured(volume, mean, area, int(counts[value]))
    return found


def editedRows(
    segmentation: "vtkSegmentation", found: dict[str, Measured], former: Sequence[ResultRow]
) -> tuple[ResultRow, ...]:
    """Return a row for every segment as it is now; why one should be looked at is left out where it was changed."""
    before = {row.segmentId: row for row in former}
    rows = []
    for segmentId in segmentation.GetSegmentIDs():
        segment, now = segmentation.GetSegment(segmentId), found[segmentId]
        name, color = segment.GetName(), colorOf(segment)
        row = ResultRow(name, color, now.volumeMl, segmentId, now.meanIntensity, (), now.areaMm2, now.voxels)
        then = before.get(segmentId)
        if then is not None and _isSameSize(then, row):
            row = replace(row, checks=then.checks)
        rows.append(row)
    return tuple(rows)


def areSameSizes(rows: Sequence[ResultRow], others: Sequence[ResultRow]) -> bool:
    """Return whether both are of the same segments, and each is as large in one as in the other."""
    return [row.segmentId for row in rows] == [row.segmentId for row in others] and all(map(_isSameSize, rows, others))


def _sizeOf(voxels: int, spacing: "np.ndarray", shape: tuple[int, ...]) -> tuple[float | None, float | None]:
    """Return volume (ml) and area (mm²), as the worker tells them: no volume in a single slice, no area elsewhere.

    Args:
        voxels: their number.
        spacing: mm along (i, j, k); 1 mm in both directions of a slice means that its file did not say.
        shape: of the image (k, j, i).
    """
    if 1 not in shape:
        return float(voxels * spacing.prod() / 1000), None
    sides = [float(mm) for mm, size in zip(spacing, shape[::-1], strict=True) if size > 1]
    return None, voxels * sides[0] * sides[1] if len(sides) == 2 and sides != [1.0, 1.0] else None


def _isSameSize(one: ResultRow, other: ResultRow) -> bool:
    if one.volumeMl is None or other.volumeMl is None:
        return one.voxels == other.voxels
    return abs(one.volumeMl - other.volumeMl) < UNCHANGED_ML


def _time(image: "vtkOrientedImageData | None") -> int:
    if image is None:
        return 0
    scalars = image.GetPointData().GetScalars()
    return max(image.GetMTime(), scalars.GetMTime() if scalars is not None else 0)


def _totals(voxels: "np.ndarray", length: int, weights: "np.ndarray | None" = None) -> "tuple[np.ndarray, np.ndarray]":
    """Return for each value below ``length`` the number of its voxels, and the sum of ``weights`` in them.

    With weights, voxels of which the weight is no number (NaN, infinite) do not count.
    """
    import numpy as np

    counts, sums = np.zeros(length), np.zeros(length)
    thick = max(1, SLAB_BYTES // max(1, voxels[:1].nbytes))
    for first in range(0, len(voxels), thick):
        values = voxels[first : first + thick].ravel()
        if weights is not None:
            within = weights[first : first + thick].ravel()
            if within.dtype.kind == "f":
                isNumber = np.isfinite(within)
                values, within = values[isNumber], within[isNumber]
            sums += np.bincount(values, within, length)[:length]
        counts += np.bincount(values, minlength=length)[:length]
    return counts, sums
