"""Small pictures of samples: a slice in its window with the outline on top, and histograms before and after."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import vtk

from .Segments import LabelMap, colorOf, imageOf, readLabelMap
from .VolumeExchange import VolumeSnapshot

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLSegmentationNode

PICTURE_WIDTH = 240
"""Pixels; twice what a picture takes in the tab, for sharp screens."""

HISTOGRAM_SIZE = (720, 160)

ORIGINAL_COLOR = (128, 128, 128)
SAMPLE_COLOR = (46, 134, 222)
REFERENCE_COLOR = (230, 126, 34)


@dataclass(frozen=True)
class Outline:
    """One segment on a picture.

    Attributes:
        color: red, green, blue, 0 to 255.
        edge: boolean (rows, columns), True on the segment's border.
    """

    color: tuple[int, int, int]
    edge: "np.ndarray"


class PictureFrame:
    """Which points of the patient the pixels of a picture show: one slice, patient's right on the left, front on top.

    Args:
        snapshot: the original's voxels (k, j, i[, c]) and place, LPS-oriented as the worker prepares it.
        k: which of its slices.
    """

    def __init__(self, snapshot: VolumeSnapshot, k: int) -> None:
        import numpy as np

        matrix = np.array(snapshot.ijkToLPS)
        _slices, rows, columns = snapshot.array.shape[:3]
        height, width = (n * np.linalg.norm(matrix[:3, axis]) for n, axis in ((rows, 1), (columns, 0)))
        self.shape = (max(8, min(4 * PICTURE_WIDTH, round(PICTURE_WIDTH * height / width))), PICTURE_WIDTH)
        self._j, self._i = np.linspace(0, rows - 1, self.shape[0]), np.linspace(0, columns - 1, self.shape[1])
        index = np.stack(
            [
                np.broadcast_to(self._i, self.shape),
                np.broadcast_to(self._j[:, None], self.shape),
                np.full(self.shape, float(k)),
                np.ones(self.shape),
            ]
        )
        points = np.tensordot(matrix, index, axes=1)
        points[:2] *= -1
        self.pointsRAS = points

    def picture(self, plane: "np.ndarray", window: tuple[float, float], outlines: list[Outline]) -> "np.ndarray":
        """Return this slice of a volume, (j, i[, c]), as uint8 (rows, columns, RGB)."""
        import numpy as np

        low, high = window
        values = (self._interpolated(plane.astype(np.float32)) - low) / (high - low if high > low else 1.0)
        gray = (255 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
        rgb = np.repeat(gray[..., None], 3, axis=-1) if gray.ndim == 2 else gray[..., :3].copy()
        for outline in outlines:
            rgb[outline.edge] = outline.color
        return rgb

    def outlines(self, node: "vtkMRMLSegmentationNode | None") -> list[Outline]:
        """Return the borders of a segmentation's visible segments; none if it has a transform or no label maps."""
        if node is None or node.GetParentTransformNode() is not None:
            return []
        segmentation, display = node.GetSegmentation(), node.GetDisplayNode()
        if not segmentation.ContainsRepresentation("Binary labelmap"):
            return []
        found = []
        for segmentId in segmentation.GetSegmentIDs():
            if display is not None and not display.GetSegmentVisibility(segmentId):
                continue
            segment = segmentation.GetSegment(segmentId)
            image = imageOf(segmentation, segmentId)
            inside = self._inside(readLabelMap(image), segment.GetLabelValue()) if image is not None else None
            if inside is not None and inside.any():
                found.append(Outline(colorOf(segment), _edgeOf(inside)))
        return found

    def _inside(self, labelMap: LabelMap, value: int) -> "np.ndarray | None":
        """Return which pixels lie in voxels of this value, None for a label map without voxels."""
        import numpy as np

        voxels = labelMap.voxels
        if not voxels.size:
            return None
        matrix = np.linalg.inv(labelMap.ijkToRas)[:3]
        index = np.rint(np.tensordot(matrix, self.pointsRAS, axes=1)).astype(np.int64)
        index -= np.array(labelMap.start)[:, None, None]
        limits = np.array(voxels.shape[::-1])[:, None, None]
        within = ((index >= 0) & (index < limits)).all(axis=0)
        i, j, k = np.clip(index, 0, limits - 1)
        return within & (voxels[k, j, i] == value)

    def _interpolated(self, plane: "np.ndarray") -> "np.ndarray":
        """Return a slice (j, i[, c]) at the picture's pixels, linearly."""
        import numpy as np

        for axis, places in ((0, self._j), (1, self._i)):
            before = np.minimum(places.astype(np.int64), max(0, plane.shape[axis] - 2))
            after = np.minimum(before + 1, plane.shape[axis] - 1)
            share = (places - before).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(plane.ndim)])
            plane = plane.take(before, axis) * (1 - share) + plane.take(after, axis) * share
        return plane


def _edgeOf(inside: "np.ndarray") -> "np.ndarray":
    """Return the pixels inside whose neighbor above, below, left or right is outside; two pixels wide."""
    core = inside
    for _step in range(2):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    return inside & ~core


def drawHistograms(original: list[float], sample: list[float] | None, reference: list[float] | None) -> "np.ndarray":
    """Return histograms (shares a bin) over each other as uint8 (rows, columns, RGBA) on a transparent ground.

    The original is a gray area, the sample a blue line, the reference an orange one. Heights are square roots of the
    shares, else the background's single peak would flatten everything.
    """
    import numpy as np

    width, height = HISTOGRAM_SIZE
    curves = [np.sqrt(np.array(shares)) for shares in (original, sample, reference) if shares]
    most = max(float(curve.max()) for curve in curves) or 1.0
    picture = np.zeros((height, width, 4), np.uint8)
    rows = np.arange(height)[:, None]
    for shares, color, isArea in (
        (original, ORIGINAL_COLOR, True),
        (reference, REFERENCE_COLOR, False),
        (sample, SAMPLE_COLOR, False),
    ):
        if not shares:
            continue
        places = np.linspace(0, len(shares) - 1, width)
        tops = height - 5 - (height - 10) * np.interp(places, np.arange(len(shares)), np.sqrt(shares)) / most
        if isArea:
            picture[rows >= tops] = (*color, 110)
        else:
            # A steep line has no gaps if every column reaches up to its higher neighbor.
            beside = np.pad(tops, 1, mode="edge")
            upper = np.minimum(tops, np.minimum(beside[:-2], beside[2:]))
            picture[(rows >= upper - 2) & (rows <= tops + 2)] = (*color, 255)
    return picture


def writePng(pixels: "np.ndarray", path: Path) -> None:
    """Write uint8 (rows, columns, RGB or RGBA), the first row on top.

    VTK itself would end the whole program where the disk is full.

    Raises:
        OSError: it could not be written.
    """
    import numpy as np
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    height, width, parts = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    flat = np.ascontiguousarray(pixels[::-1]).reshape(-1, parts)
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    writer = vtk.vtkPNGWriter()
    writer.WriteToMemoryOn()
    writer.SetCompressionLevel(1)
    writer.SetInputData(image)
    writer.Write()
    path.write_bytes(vtk_to_numpy(writer.GetResult()).tobytes())
