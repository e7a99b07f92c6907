"""Closed surfaces of a label map, made where nobody waits for them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

SMOOTHING_VOXELS = 0.8
"""Standard deviation of the Gaussian that takes the steps of voxels off a surface."""
LARGEST_BOX = 24_000_000
"""Voxels of a structure's box up to which its surface is made at full detail."""


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in voxel indices.

    Attributes:
        points: float32 (n, 3): (i, j, k) of each point, in voxels; voxel centres are whole numbers.
        triangles: int64 (m, 3) of indices into ``points``, counter-clockwise seen from outside.
        normals: float32 (n, 3): gradient along (i, j, k), out of the structure, of unit length in voxels.
    """

    points: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int64]
    normals: npt.NDArray[np.float32]


def surface_of(mask: npt.NDArray[np.bool_]) -> Surface | None:
    """Return the smoothed surface around the voxels of ``mask`` (k, j, i); None where there is no voxel.

    It is closed also where the structure touches the image's border. A structure that smoothing would take away, or of
    which it would leave less than half, keeps its voxels' own shape. Very large ones are sampled at every second voxel.
    """
    if not mask.any():
        return None
    room = 4
    solid = np.pad(mask, room).astype(np.float32)
    smooth = ndimage.gaussian_filter(solid, SMOOTHING_VOXELS, truncate=3.0)
    chosen = smooth if (smooth >= 0.5).sum() >= 0.5 * mask.sum() else solid
    step = 1 if solid.size <= LARGEST_BOX else 2
    try:
        points, triangles, normals, _ = marching_cubes(chosen, 0.5, step_size=step, allow_degenerate=False)
    except RuntimeError:  # none of the voxels looked at lies inside: thin or small pieces far apart
        points, triangles, normals, _ = marching_cubes(chosen, 0.5, allow_degenerate=False)
    if not len(triangles):
        points, triangles, normals, _ = marching_cubes(solid, 0.5, allow_degenerate=False)
    # From (k, j, i) to (i, j, k): a mirror, which turns every triangle's sense of rotation.
    points = np.ascontiguousarray(points[:, ::-1] - np.float32(room))
    turned = triangles[:, ::-1].astype(np.int64)
    outward = _outward(points, turned)
    triangles = np.ascontiguousarray(turned if outward else turned[:, ::-1])
    normals = np.ascontiguousarray(normals[:, ::-1])
    return Surface(points, triangles, _facing_as_triangles(points, triangles, normals))


def _outward(points: npt.NDArray[np.float32], triangles: npt.NDArray[np.int64]) -> bool:
    a, b, c = (points[triangles[:, n]].astype(np.float64) for n in range(3))
    return bool(np.einsum("ij,ij->", a, np.cross(b, c)) > 0)


def _facing_as_triangles(
    points: npt.NDArray[np.float32], triangles: npt.NDArray[np.int64], normals: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    a, b, c = (points[triangles[:, n]] for n in range(3))
    agreement = np.einsum("ij,ij->", np.cross(b - a, c - a), normals[triangles[:, 0]])
    return normals if agreement > 0 else -normals
