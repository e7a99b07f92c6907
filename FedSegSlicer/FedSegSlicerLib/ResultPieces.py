"""The worker's result as small files: read on another thread, then put together in short steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import slicer
import vtk
from slicer.i18n import tr as _

from .Errors import UserError
from .Segments import colorOf

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkOrientedImageData, vtkSegment, vtkSegmentation

SLAB_BYTES = 4_000_000
"""Voxels copied in one step."""
GIVEN = "FedSegSlicer.Given"
"""Tag of a segment: the name and color it was made with, so that those a user changed can be told."""


@dataclass(frozen=True)
class SurfacePiece:
    """A triangle mesh: float32 RAS points (mm) and unit normals (n, 3), int64 connectivity (3 a triangle)."""

    points: "np.ndarray"
    normals: "np.ndarray"
    connectivity: "np.ndarray"


@dataclass(frozen=True)
class SegmentPiece:
    """A segment: its identity, the RAS point (mm) to show, and its surface; both None where it is empty."""

    id: str
    name: str
    value: int
    color: tuple[int, int, int]
    terminology: str
    center: tuple[float, float, float] | None
    surface: SurfacePiece | None


@dataclass(frozen=True)
class Pieces:
    """A result: uint8 labels (k, j, i) from voxel ``start`` (i, j, k) on (None if nothing was found), and segments."""

    labels: "np.ndarray | None"
    start: tuple[int, int, int]
    segments: tuple[SegmentPiece, ...]


def unreadableResult(_error: Exception | None = None) -> UserError:
    """Return the error of a result that is not what the worker wrote."""
    return UserError(
        "result.unreadable",
        _("The worker's result could not be read."),
        _("Try again; if it happens again, look whether the temporary folder's disk is full."),
    )


def readPieces(folder: Path, described: dict[str, Any], ijkToRas: "np.ndarray", size: tuple[int, int, int]) -> Pieces:
    """Read what the worker wrote; touches neither Qt nor the scene, for another thread.

    Args:
        folder: holds the files.
        described: what the worker says of them.
        ijkToRas: 4x4, voxel index to RAS mm.
        size: voxels of the volume along (i, j, k).

    Raises:
        OSError, ValueError: a file is missing, cut short or not what it should be.
    """
    import numpy as np

    labels, start = None, (0, 0, 0)
    if described["labels"] is not None:
        labels = np.load(folder / described["labels"]["file"], allow_pickle=False)
        start = tuple(described["labels"]["start"])
        inside = all(s >= 0 and s + n <= whole for s, n, whole in zip(start, labels.shape[::-1], size, strict=True))
        if labels.dtype != np.uint8 or labels.ndim != 3 or not inside:
            raise ValueError("labels")
    return Pieces(labels, start, tuple(_readSegment(folder, entry, ijkToRas) for entry in described["segments"]))


def _readSegment(folder: Path, entry: dict[str, Any], ijkToRas: "np.ndarray") -> SegmentPiece:
    center = entry["center"]
    if center is not None:
        center = tuple(float(part) for part in (ijkToRas @ [*center, 1.0])[:3])
    surface = entry["surface"] and _readSurface(folder, entry["surface"], ijkToRas)
    return SegmentPiece(
        entry["id"], entry["name"], int(entry["value"]), tuple(entry["color"]), entry["terminology"], center, surface
    )


def _readSurface(folder: Path, files: dict[str, str], ijkToRas: "np.ndarray") -> SurfacePiece:
    import numpy as np

    points, normals, triangles = (
        np.load(folder / files[name], allow_pickle=False) for name in ("points", "normals", "triangles")
    )
    if points.shape != normals.shape or points.ndim != 2 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError("surface")
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < len(points):
        raise ValueError("triangles")  # VTK would read beyond its memory
    ras = points @ ijkToRas[:3, :3].T.astype(np.float32) + ijkToRas[:3, 3].astype(np.float32)
    # A gradient goes over with the inverse, transposed.
    turned = normals @ np.linalg.inv(ijkToRas[:3, :3]).astype(np.float32)
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
    if np.linalg.det(ijkToRas[:3, :3]) < 0:
        triangles = triangles[:, ::-1]  # a mirror turns every triangle's sense of rotation
    return SurfacePiece(
        np.ascontiguousarray(ras, np.float32),
        np.ascontiguousarray(turned, np.float32),
        np.ascontiguousarray(triangles, np.int64).ravel(),
    )


def build(pieces: Pieces, ijkToRas: "np.ndarray", segmentation: "vtkSegmentation") -> Iterator[None]:
    """Put the pieces into a segmentation that nobody shows yet, in short steps.

    All segments share one label map, as when Slicer itself loads a segmentation file.
    """
    segmentation.SetSourceRepresentationName(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())
    image = slicer.vtkOrientedImageData()
    yield from _fillImage(image, pieces, ijkToRas)
    for piece in pieces.segments:
        segmentation.AddSegment(_segment(piece, image), piece.id)
        yield


def _fillImage(image: "vtkOrientedImageData", pieces: Pieces, ijkToRas: "np.ndarray") -> Iterator[None]:
    from vtk.util.numpy_support import vtk_to_numpy

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(ijkToRas.ravel().tolist())
    image.SetImageToWorldMatrix(matrix)
    if pieces.labels is None:
        return
    k, j, i = pieces.labels.shape
    first = pieces.start
    image.SetExtent(first[0], first[0] + i - 1, first[1], first[1] + j - 1, first[2], first[2] + k - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)
    thick = max(1, SLAB_BYTES // (j * i))
    for slab in range(0, k, thick):
        voxels[slab : slab + thick] = pieces.labels[slab : slab + thick]
        yield


def _segment(piece: SegmentPiece, image: "vtkOrientedImageData") -> "vtkSegment":
    segment = slicer.vtkSegment()
    segment.SetName(piece.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*(part / 255 for part in piece.color))
    segment.SetColorAutoGenerated(False)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), piece.terminology)
    segment.SetTag(GIVEN, givenTag(segment))
    segment.SetLabelValue(piece.value)
    converter = slicer.vtkSegmentationConverter
    segment.AddRepresentation(converter.GetBinaryLabelmapRepresentationName(), image)
    segment.AddRepresentation(converter.GetClosedSurfaceRepresentationName(), _polyData(piece.surface))
    return segment


def givenTag(segment: "vtkSegment") -> str:
    """Return a segment's present color and name as one text, which survives a file: there, ``|`` ends a tag."""
    return ",".join([*map(str, colorOf(segment)), quote(segment.GetName(), safe="")])


def _polyData(surface: SurfacePiece | None) -> "vtk.vtkPolyData":
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    data = vtk.vtkPolyData()
    if surface is None:
        return data
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(surface.points, deep=True))
    triangles = vtk.vtkCellArray()
    triangles.SetData(3, numpy_to_vtkIdTypeArray(surface.connectivity, deep=True))
    normals = numpy_to_vtk(surface.normals, deep=True)
    normals.SetName("Normals")
    data.SetPoints(points)
    data.SetPolys(triangles)
    data.GetPointData().SetNormals(normals)
    return data
