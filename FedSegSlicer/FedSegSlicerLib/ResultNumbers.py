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
    """A segment's volume (ml), and the image's mean in it; None where it is empty or on another grid, or in color."""

    volumeMl: float
    meanIntensity: float | None


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
        milliliters = abs(np.linalg.det(labelMap.ijkToRas[:3, :3])) / 1000
        counts = _totals(labelMap.voxels, length)
        inside, sums = np.zeros(length), np.zeros(length)
        if image.ndim == 3 and labelMap.isOnGrid(ijkToRas):
            here, there = labelMap.overlap(image.shape)
            inside = _totals(labelMap.voxels[here], length)
            sums = _totals(labelMap.voxels[here], length, image[there])
        for segmentId, value in shared.values.items():
            mean = float(sums[value] / inside[value]) if inside[value] else None
            found[segmentId] = Measured(float(counts[value] * milliliters), mean)
    return found


def editedRows(
    segmentation: "vtkSegmentation", found: dict[str, Measured], former: Sequence[ResultRow]
) -> tuple[ResultRow, ...]:
    """Return a row for every segment as it is now; why one should be looked at is left out where it was changed."""
    before = {row.segmentId: row for row in former}
    rows = []
    for segmentId in segmentation.GetSegmentIDs():
        segment, now = segmentation.GetSegment(segmentId), found[segmentId]
        row = ResultRow(segment.GetName(), colorOf(segment), now.volumeMl, segmentId, now.meanIntensity)
        then = before.get(segmentId)
        if then is not None and abs(then.volumeMl - now.volumeMl) < UNCHANGED_ML:
            row = replace(row, checks=then.checks)
        rows.append(row)
    return tuple(rows)


def _time(image: "vtkOrientedImageData | None") -> int:
    if image is None:
        return 0
    scalars = image.GetPointData().GetScalars()
    return max(image.GetMTime(), scalars.GetMTime() if scalars is not None else 0)


def _totals(voxels: "np.ndarray", length: int, weights: "np.ndarray | None" = None) -> "np.ndarray":
    """Return for each value below ``length`` the number of its voxels, or the sum of ``weights`` in them."""
    import numpy as np

    totals = np.zeros(length)
    thick = max(1, SLAB_BYTES // max(1, voxels[:1].nbytes))
    for first in range(0, len(voxels), thick):
        slab = slice(first, first + thick)
        within = None if weights is None else weights[slab].ravel()
        totals += np.bincount(voxels[slab].ravel(), within, length)[:length]
    return totals
