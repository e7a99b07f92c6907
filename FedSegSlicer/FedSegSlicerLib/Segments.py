"""What the segments of the scene look like and which voxels they have; nothing is copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import slicer
import vtk

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkOrientedImageData, vtkSegment, vtkSegmentation

SAME_PLACE_MM = 1e-3
"""Grids whose matrices differ by no more than this are the same."""

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class LabelMap:
    """The voxels of a segment, and of all that share them.

    Attributes:
        voxels: integers (k, j, i), shared with the scene; empty where there are none.
        start: its first voxel (i, j, k), counted as ``ijkToRas`` counts.
        ijkToRas: 4x4, voxel index to RAS mm.
    """

    voxels: "np.ndarray"
    start: tuple[int, int, int]
    ijkToRas: "np.ndarray"

    def onGrid(self, ijkToRas: "np.ndarray") -> "LabelMap | None":
        """Return the same voxels counted as an image with this matrix counts them; None if they are others.

        Slicer counts the slices of an image from the other end than its file where the file has them mirrored, but
        leaves those of a segmentation as its file has them.
        """
        import numpy as np

        between = np.rint(np.linalg.inv(ijkToRas) @ self.ijkToRas)
        turns = between[:3, :3].astype(int)
        isPermutation = (abs(turns).sum(axis=0) == 1).all() and (abs(turns).sum(axis=1) == 1).all()
        if not isPermutation or abs(ijkToRas @ between - self.ijkToRas).max() > SAME_PLACE_MM:
            return None
        own = [int(abs(row).argmax()) for row in turns]
        ways = [int(turns[axis, own[axis]]) for axis in range(3)]
        voxels = self.voxels.transpose([2 - own[axis] for axis in (2, 1, 0)])[
            tuple(slice(None, None, w) for w in ways[::-1])
        ]
        ends = [
            way * (self.start[n] + (self.voxels.shape[2 - n] - 1) * (way < 0)) for n, way in zip(own, ways, strict=True)
        ]
        i, j, k = (int(end + between[axis, 3]) for axis, end in enumerate(ends))
        return LabelMap(voxels, (i, j, k), ijkToRas)

    def overlap(self, shape: Sequence[int]) -> tuple[Slices, Slices]:
        """Return which part of it lies in an image of the same grid and this ``shape`` (k, j, i), and where there.

        A segment that was painted beyond the image is cut at its edge; both parts are empty where nothing is left.
        """
        here, there = [], []
        for begin, size, whole in zip(self.start[::-1], self.voxels.shape, shape, strict=True):
            first = max(0, -begin)
            last = max(first, min(size, whole - begin))
            here.append(slice(first, last))
            there.append(slice(begin + first, begin + last))
        return tuple(here), tuple(there)


def imageOf(segmentation: "vtkSegmentation", segmentId: str) -> "vtkOrientedImageData | None":
    """Return the image that holds a segment's label map; None where it has none."""
    name = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    return segmentation.GetSegment(segmentId).GetRepresentation(name)


def readLabelMap(image: "vtkOrientedImageData") -> LabelMap:
    """Return what an image holds."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    scalars = image.GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        voxels = np.zeros((0, 0, 0), np.uint8)
    else:
        voxels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    return LabelMap(voxels, tuple(image.GetExtent()[::2]), slicer.util.arrayFromVTKMatrix(matrix))


def colorOf(segment: "vtkSegment") -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255."""
    red, green, blue = (round(255 * part) for part in segment.GetColor())
    return red, green, blue
