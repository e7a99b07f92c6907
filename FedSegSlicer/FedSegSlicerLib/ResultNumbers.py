"""Volumes and mean intensities of a result as it is now, for one that was edited since the worker measured it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import slicer
import vtk

from .ResultImport import ijkToRasOf
from .ResultPieces import SLAB_BYTES
from .SegmentationResult import ResultRow

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLScalarVolumeNode, vtkOrientedImageData, vtkSegmentation

UNCHANGED_ML = 1e-3
"""A structure whose volume differs by less is taken for the worker's own, with its marks."""


@dataclass(frozen=True)
class Layer:
    """A label map, which several segments may share.

    Attributes:
        labels: integers (k, j, i); a view of what the scene has.
        start: its first voxel (i, j, k), counted as ``ijkToRas`` counts.
        ijkToRas: 4x4, voxel index to RAS mm.
        values: segment ID → its value in ``labels``.
    """

    labels: "np.ndarray"
    start: tuple[int, int, int]
    ijkToRas: "np.ndarray"
    values: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """A segment's volume (ml), and the mean of the image in it; None where it is empty or on another grid."""

    volumeMl: float
    meanIntensity: float | None


def stateOf(segmentation: "vtkSegmentation") -> tuple[tuple[str, int], ...]:
    """Return what is another as soon as a voxel, or the list of segments, has been changed; names do not count."""
    return tuple((segmentId, _time(_labelMap(segmentation, segmentId))) for segmentId in segmentation.GetSegmentIDs())


def layersOf(segmentation: "vtkSegmentation") -> list[Layer]:
    """Return the label maps of a segmentation; nothing is copied.

    Raises:
        ValueError: a segment has no label map.
    """
    found: dict[str, tuple[vtkOrientedImageData, dict[str, int]]] = {}
    for segmentId in segmentation.GetSegmentIDs():
        image = _labelMap(segmentation, segmentId)
        if image is None:
            raise ValueError("no label map")
        _image, values = found.setdefault(image.GetAddressAsString(""), (image, {}))
        values[segmentId] = segmentation.GetSegment(segmentId).GetLabelValue()
    return [_layer(image, values) for image, values in found.values()]


def measure(layers: Sequence[Layer], image: "np.ndarray", ijkToRas: "np.ndarray") -> dict[str, Measured]:
    """Return segment ID → its measures; touches neither Qt nor the scene, for another thread.

    Args:
        layers: of the segmentation.
        image: intensities (k, j, i).
        ijkToRas: the image's, 4x4.

    Raises:
        ValueError: a label map has negative values.
    """
    import numpy as np

    found = {}
    for layer in layers:
        milliliters = abs(np.linalg.det(layer.ijkToRas[:3, :3])) / 1000
        counts = _counts(layer)
        means = _means(layer, image) if np.allclose(layer.ijkToRas, ijkToRas, atol=1e-4) else {}
        for segmentId, value in layer.values.items():
            found[segmentId] = Measured(float(counts[value] * milliliters), means.get(value))
    return found


def editedRows(
    segmentation: "vtkSegmentation", found: dict[str, Measured], former: Sequence[ResultRow]
) -> tuple[ResultRow, ...]:
    """Return a row for every segment as it is now; why one should be looked at is left out where it was changed."""
    before = {row.segmentId: row for row in former}
    rows = []
    for segmentId in segmentation.GetSegmentIDs():
        segment, now = segmentation.GetSegment(segmentId), found[segmentId]
        row = before.get(segmentId, ResultRow("", (0, 0, 0), -1.0, segmentId))
        same = abs(row.volumeMl - now.volumeMl) < UNCHANGED_ML
        rows.append(
            replace(
                row,
                name=segment.GetName(),
                color=tuple(round(255 * part) for part in segment.GetColor()),
                volumeMl=now.volumeMl,
                meanIntensity=now.meanIntensity,
                checks=row.checks if same else (),
            )
        )
    return tuple(rows)


def imageOf(volumeNode: "vtkMRMLScalarVolumeNode") -> "tuple[np.ndarray, np.ndarray]":
    """Return a volume's intensities (k, j, i), not copied, and its 4x4 matrix from voxel index to RAS mm."""
    return slicer.util.arrayFromVolume(volumeNode), ijkToRasOf(volumeNode)


def _labelMap(segmentation: "vtkSegmentation", segmentId: str) -> "vtkOrientedImageData | None":
    name = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    return segmentation.GetSegment(segmentId).GetRepresentation(name)


def _time(image: "vtkOrientedImageData | None") -> int:
    if image is None:
        return 0
    scalars = image.GetPointData().GetScalars()
    return max(image.GetMTime(), scalars.GetMTime() if scalars is not None else 0)


def _layer(image: "vtkOrientedImageData", values: dict[str, int]) -> Layer:
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijkToRas = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    scalars, extent = image.GetPointData().GetScalars(), image.GetExtent()
    if scalars is None:
        labels = np.zeros((0, 0, 0), np.uint8)
    else:
        i, j, k = image.GetDimensions()
        labels = vtk_to_numpy(scalars).reshape(k, j, i)
    return Layer(labels, (extent[0], extent[2], extent[4]), ijkToRas, values)


def _slabs(labels: "np.ndarray") -> list[slice]:
    thick = max(1, SLAB_BYTES // max(1, labels[:1].nbytes))
    return [slice(first, first + thick) for first in range(0, len(labels), thick)]


def _counts(layer: Layer) -> "np.ndarray":
    import numpy as np

    length = max(layer.values.values()) + 1
    counts = np.zeros(length, np.int64)
    for slab in _slabs(layer.labels):
        counts += np.bincount(layer.labels[slab].ravel(), minlength=length)[:length]
    return counts


def _means(layer: Layer, image: "np.ndarray") -> dict[int, float]:
    """Return label value → mean of the image in it, of those that have voxels within the image."""
    import numpy as np

    length = max(layer.values.values()) + 1
    counts, sums = np.zeros(length, np.int64), np.zeros(length)
    start = layer.start[::-1]
    first = [max(0, -s) for s in start]
    last = [min(n, whole - s) for n, whole, s in zip(layer.labels.shape, image.shape, start, strict=True)]
    inside = tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
    labels = layer.labels[inside]
    voxels = image[tuple(slice(a + s, max(a, b) + s) for a, b, s in zip(first, last, start, strict=True))]
    for slab in _slabs(labels):
        flat = labels[slab].ravel()
        counts += np.bincount(flat, minlength=length)[:length]
        sums += np.bincount(flat, weights=voxels[slab].ravel(), minlength=length)[:length]
    return {value: float(sums[value] / counts[value]) for value in layer.values.values() if counts[value]}
