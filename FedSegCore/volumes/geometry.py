"""Orientation and resampling, exact where nothing needs interpolating."""

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from FedSegCore.volumes.file_checks import bad_geometry
from FedSegCore.volumes.volume import Grid, Vector, Volume

Array = npt.NDArray[Any]
Interpolation = Literal["linear", "nearest"]

_WORLD = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
_EXACT = 1e-4
_TOLERATED = 1e-2


def nearest_orthonormal(direction: npt.ArrayLike) -> tuple[float, ...]:
    """Return nine direction cosines, made orthonormal if they are off by rounding or a header's few digits.

    Cosines within 1e-4 of orthonormal are kept as they are, so that a grid goes out exactly as it came in.

    Raises:
        BadInputError: ``image.bad-geometry``: axes are skewed by more than about half a degree, or degenerate.
    """
    matrix = np.asarray(direction, np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all():
        raise bad_geometry("its orientation is not a number")
    off = np.abs(matrix.T @ matrix - np.eye(3)).max()
    if off > _TOLERATED:
        raise bad_geometry("its axes are not perpendicular (sheared or degenerate)")
    if off > _EXACT:
        left, _, right = np.linalg.svd(matrix)
        matrix = left @ right
    return tuple(float(value) for value in matrix.ravel())


def checked_grid(shape: tuple[int, int, int], spacing: Vector, origin: Vector, direction: npt.ArrayLike) -> Grid:
    """Return a Grid of plain numbers; raises BadInputError ``image.bad-geometry`` where it makes no sense."""
    if not (np.isfinite(spacing).all() and np.min(spacing) > 0):
        raise bad_geometry("the distance between its voxels is zero or not a number")
    if not np.isfinite(origin).all():
        raise bad_geometry("its position is not a number")
    a, b, c = (float(value) for value in spacing)
    x, y, z = (float(value) for value in origin)
    return Grid(shape, (a, b, c), (x, y, z), nearest_orthonormal(direction))


@dataclass(frozen=True)
class Orientation:
    """A reordering and flipping of voxel axes, and its exact inverse.

    Attributes:
        axes: old axis of (i, j, k) that becomes the new i, j, k.
        flips: whether that axis then runs the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def towards(cls, grid: Grid, code: str = "LPS") -> "Orientation":
        """Return what makes i, j, k point as nearly as possible to the letters of ``code`` (``"LPS"``, ``"RAS"`` …).

        Raises:
            ValueError: ``code`` does not name three different axes.
        """
        wanted = [_WORLD.get(letter, (-1, 0)) for letter in code]
        if sorted(axis for axis, _ in wanted) != [0, 1, 2]:
            raise ValueError(f"no orientation: {code!r}")
        cosines = np.reshape(grid.direction, (3, 3))
        rows = [axis for axis, _ in wanted]
        best = max(permutations(range(3)), key=lambda order: float(np.abs(cosines[rows, list(order)]).sum()))
        flips = [bool(cosines[axis, old] * sign < 0) for (axis, sign), old in zip(wanted, best, strict=True)]
        return cls(cast(tuple[int, int, int], best), cast(tuple[bool, bool, bool], tuple(flips)))

    def apply(self, array: Array) -> Array:
        """Return a view of ``array`` (c, k, j, i) in the new order."""
        # Array axis of voxel axis n (i = 0) is 3 - n.
        order = (0, *(3 - self.axes[n] for n in (2, 1, 0)))
        return array.transpose(order)[self._slices()]

    def undo(self, array: Array) -> Array:
        """Return a view of ``array`` (c, k, j, i) in the old order: the exact inverse of :meth:`apply`."""
        order = (0, *(3 - self.axes[n] for n in (2, 1, 0)))
        return array[self._slices()].transpose(np.argsort(order))

    def grid(self, grid: Grid) -> Grid:
        """Return the grid on which the reordered voxels lie where they lay."""
        sizes = grid.shape[::-1]
        cosines = np.reshape(grid.direction, (3, 3))
        corner = [sizes[old] - 1 if flip else 0 for old, flip in zip(self.axes, self.flips, strict=True)]
        index = np.zeros(3)
        index[list(self.axes)] = corner
        origin = (grid.affine() @ np.append(index, 1.0))[:3] if any(self.flips) else np.array(grid.origin)
        signs = np.where(self.flips, -1.0, 1.0)
        direction = cosines[:, list(self.axes)] * signs
        i, j, k = (sizes[old] for old in self.axes)
        spacing = tuple(grid.spacing[old] for old in self.axes)
        return Grid(
            (k, j, i),
            cast(Vector, spacing),
            cast(Vector, tuple(float(value) for value in origin)),
            tuple(float(value) for value in direction.ravel()),
        )

    def _slices(self) -> tuple[slice, ...]:
        return (slice(None), *(slice(None, None, -1 if self.flips[n] else 1) for n in (2, 1, 0)))


def orientation_code(grid: Grid) -> str:
    """Return where i, j, k point, most nearly, in three letters of L/R, P/A, S/I."""
    cosines = np.reshape(grid.direction, (3, 3))
    order = max(permutations(range(3)), key=lambda rows: float(np.abs(cosines[list(rows), range(3)]).sum()))
    letters = {(axis, sign): letter for letter, (axis, sign) in _WORLD.items()}
    return "".join(letters[row, 1 if cosines[row, n] >= 0 else -1] for n, row in enumerate(order))


def reorient(volume: Volume, code: str = "LPS") -> Volume:
    """Return the volume with its axes reordered and flipped (no interpolation) so that i, j, k point to ``code``."""
    orientation = Orientation.towards(volume.grid, code)
    return replace(
        volume, array=np.ascontiguousarray(orientation.apply(volume.array)), grid=orientation.grid(volume.grid)
    )


def grid_with_spacing(grid: Grid, spacing: tuple[float | None, float | None, float | None]) -> Grid:
    """Return a grid over the same space with other distances between voxels.

    Args:
        grid: the grid to cover; its centre stays the centre.
        spacing: mm along (i, j, k); None keeps an axis. An axis with one voxel is always kept.
    """
    sizes, distances, shift = [], [], []
    for n, (size, old, new) in enumerate(zip(grid.shape[::-1], grid.spacing, spacing, strict=True)):
        keep = new is None or new == old or grid.shape[2 - n] == 1
        distance = old if keep or new is None else new
        count = size if keep else max(1, int(np.floor(size * old / distance + 0.5)))
        sizes.append(count)
        distances.append(distance)
        shift.append(0.0 if keep else ((size - 1) * old - (count - 1) * distance) / 2)
    return _moved(grid, sizes, distances, shift)


def square_grid(grid: Grid, size: tuple[int, int]) -> Grid:
    """Return the grid of slices padded evenly to a square of voxels and resized to ``size`` (j, i)."""
    _, rows, columns = grid.shape
    side = max(rows, columns)
    sizes, distances, shift = [], [], []
    for count, new, old in zip((columns, rows), size[::-1], grid.spacing, strict=False):
        distance = old * side / new
        sizes.append(new)
        distances.append(distance)
        shift.append(((count - 1) * old - (new - 1) * distance) / 2)
    return _moved(grid, [*sizes, grid.shape[0]], [*distances, grid.spacing[2]], [*shift, 0.0])


def share_of_square(grid: Grid) -> float:
    """Return the share, in (0, 1], of ``square_grid``'s slices that is image; the rest is padding."""
    _, rows, columns = grid.shape
    return min(rows, columns) / max(rows, columns)


def _moved(grid: Grid, sizes: list[int], spacing: list[float], shift: list[float]) -> Grid:
    """Return a grid with the same axes whose first voxel lies ``shift`` mm along (i, j, k) from the old one."""
    origin = np.array(grid.origin) + np.reshape(grid.direction, (3, 3)) @ shift
    x, y, z = (float(value) for value in origin) if any(shift) else grid.origin
    a, b, c = spacing
    return Grid((sizes[2], sizes[1], sizes[0]), (a, b, c), (x, y, z), grid.direction)


def to_sitk(volume: Volume) -> sitk.Image:
    """Return the volume as an ITK image; more than one channel becomes a vector image."""
    several = volume.channels > 1
    array = np.moveaxis(volume.array, 0, -1) if several else volume.array[0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=several)
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    return image


def resample(volume: Volume, grid: Grid, interpolation: Interpolation, *, outside: float = 0.0) -> Volume:
    """Return the volume on any other grid.

    Args:
        volume: channels are resampled one by one.
        grid: where the new voxels lie; may be turned against the old one.
        interpolation: ``"linear"`` (float32 result) or ``"nearest"`` (same number type).
        outside: value of voxels whose centre lies in no old voxel.
    """
    if grid == volume.grid:
        return volume
    kind = sitk.sitkLinear if interpolation == "linear" else sitk.sitkNearestNeighbor
    planes = []
    for channel in volume.array:
        array = channel[None].astype(np.float32, copy=False) if interpolation == "linear" else channel[None]
        image = to_sitk(replace(volume, array=array))
        size = grid.shape[::-1]
        resampled = sitk.Resample(
            image, size, sitk.Transform(), kind, grid.origin, grid.spacing, grid.direction, outside
        )
        planes.append(sitk.GetArrayFromImage(resampled))
    return replace(volume, array=np.stack(planes), grid=grid)
