"""Resampling between grids that share their axes: one small matrix or index list per axis, no rounding in mm."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from FedSegCore.volumes.volume import Grid

Array = npt.NDArray[Any]
_TIE = 1e-6


class Taps(NamedTuple):
    """What makes the new voxels of an axis.

    Attributes:
        indices: (new, taps) old voxels of each new one.
        weights: (new, taps) float32, how much of each.
    """

    indices: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]

    @property
    def changes_nothing(self) -> bool:
        """Whether every new voxel is the old one in its place."""
        return self.indices.shape[1] == 1

    def part(self, new: slice) -> tuple["Taps", slice]:
        """Return those of a range of new voxels, and the range of old ones that they look at and now count from."""
        indices, weights = self.indices[new], self.weights[new]
        used = indices[weights > 0]
        old = slice(int(used.min()), int(used.max()) + 1)
        return Taps(np.clip(indices - old.start, 0, old.stop - old.start - 1), weights), old

    def totals(self, count: int) -> npt.NDArray[np.float64]:
        """Return how much each of ``count`` old voxels adds to all new ones together."""
        return np.bincount(self.indices.ravel(), self.weights.ravel(), count).astype(np.float64, copy=False)

    def looking_at(self, chosen: npt.NDArray[np.bool_]) -> slice:
        """Return the range of new voxels that look at any of the ``chosen`` old ones; empty where none does."""
        found = np.flatnonzero((chosen[self.indices] & (self.weights > 0)).any(1))
        return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def axis_positions(source: Grid, target: Grid) -> tuple[npt.NDArray[np.float64], ...]:
    """Return, for the axes k, j, i, where the target's voxel centres lie, in voxels of the source from its first.

    Both grids must have the same direction.
    """
    offset = np.reshape(source.direction, (3, 3)).T @ (np.array(target.origin) - np.array(source.origin))
    positions = []
    for n in (2, 1, 0):
        centres = offset[n] + np.arange(target.shape[2 - n]) * target.spacing[n]
        positions.append(centres / source.spacing[n])
    return tuple(positions)


def is_identity(positions: npt.NDArray[np.float64], count: int) -> bool:
    """Return whether an axis of ``count`` voxels stays as it is."""
    return len(positions) == count and bool(np.abs(positions - np.arange(count)).max() < _TIE)


def linear_taps(positions: npt.NDArray[np.float64], count: int, *, padded: bool) -> Taps:
    """Return which old voxels make each new one and how much of each; a voxel's weights add up to 1.

    Linear interpolation, widened to a weighted average where voxels get fewer.

    Args:
        positions: where the new voxels lie, in old voxels.
        count: number of old voxels.
        padded: whether the old voxels are surrounded by zeros (rows may then add up to less); else the outermost ones
            go on outwards.
    """
    step = float(positions[1] - positions[0]) if len(positions) > 1 else 1.0
    width = max(1.0, step)
    at = positions if padded else np.clip(positions, 0, count - 1)
    old = np.ceil(at - width)[:, None] + np.arange(2 * int(np.ceil(width)))
    weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - old) / width)
    inside = (old >= 0) & (old < count)
    if not padded:
        weights *= inside
    weights /= weights.sum(1, keepdims=True)
    return Taps(np.clip(old, 0, count - 1).astype(np.intp), (weights * inside).astype(np.float32))


def axis_taps(source: Grid, target: Grid, *, padded: bool = False) -> tuple[Taps, Taps, Taps]:
    """Return the taps along (k, j, i) of ``interpolate``; where an axis stays as it is, one for each voxel."""
    k, j, i = (
        Taps(np.arange(count)[:, None], np.ones((count, 1), np.float32))
        if is_identity(positions, count)
        else linear_taps(positions, count, padded=padded and axis > 0)
        for axis, (positions, count) in enumerate(zip(axis_positions(source, target), source.shape, strict=True))
    )
    return k, j, i


def nearest_indices(positions: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """Return the old voxel nearest to each position (the lower one of two), the outermost one outside."""
    return np.clip(np.floor(positions + 0.5 - _TIE), 0, count - 1).astype(np.intp)


def _mix(array: npt.NDArray[np.float32], taps: Taps, axis: int) -> Array:
    """Return float32 ``array`` (c, k, j, i) interpolated along ``axis`` 1, 2 or 3."""
    indices, weights = taps
    shape = [1] * array.ndim
    shape[axis] = -1
    out = np.take(array, indices[:, 0], axis) * weights[:, 0].reshape(shape)
    for tap in range(1, indices.shape[1]):
        part = np.take(array, indices[:, tap], axis)
        part *= weights[:, tap].reshape(shape)
        out += part
    return out


def mix(array: Array, taps: tuple[Taps, Taps, Taps]) -> npt.NDArray[np.float32]:
    """Return ``array`` (c, k, j, i) interpolated by the taps of (k, j, i), float32."""
    out = np.ascontiguousarray(array, np.float32)
    # Axes that shrink come first: the work then runs on fewer voxels.
    for axis, own in sorted(enumerate(taps, start=1), key=lambda item: len(item[1].indices) / array.shape[item[0]]):
        if not own.changes_nothing:
            out = _mix(out, own, axis)
    return out


def take_nearest(array: Array, source: Grid, target: Grid) -> Array:
    """Return ``array`` (c, k, j, i) of ``source`` at the nearest voxels of ``target``."""
    for axis, positions in enumerate(axis_positions(source, target), start=1):
        if not is_identity(positions, array.shape[axis]):
            array = np.take(array, nearest_indices(positions, array.shape[axis]), axis=axis)
    return array


def interpolate(array: Array, source: Grid, target: Grid, *, padded: bool = False) -> npt.NDArray[np.float32]:
    """Return ``array`` (c, k, j, i) of ``source`` linearly interpolated at ``target``, float32."""
    return mix(array, axis_taps(source, target, padded=padded))
