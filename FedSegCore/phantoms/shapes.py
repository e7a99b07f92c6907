"""Smooth shapes as functions of points: what a generated patient is made of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float32]
"""(..., 3) LPS mm."""

Scalar = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; its level is 0 at the centre, 1 on the surface and grows outwards like a distance.

    Attributes:
        centre: LPS mm.
        axes: 3x3; row n is the unit vector of axis n divided by that axis' radius in mm.
    """

    centre: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]

    @classmethod
    def make(
        cls,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        rng: np.random.Generator,
        *,
        shift: float = 5.0,
        stretch: float = 0.09,
        turn: float = 0.12,
    ) -> "Ellipsoid":
        """Return an ellipsoid near the given one.

        Args:
            centre: LPS mm.
            radii: along L, P, S in mm.
            rng: decides how it differs.
            shift: largest displacement of the centre along each axis in mm.
            stretch: largest relative change of each radius.
            turn: largest rotation about a random axis in radians.
        """
        moved = np.asarray(centre) + rng.uniform(-shift, shift, 3)
        scaled = np.asarray(radii) * rng.uniform(1 - stretch, 1 + stretch, 3)
        rotation = small_rotation(rng, turn)
        return cls(moved.astype(np.float32), (rotation / scaled[:, None]).astype(np.float32))

    def level(self, points: Points) -> Scalar:
        """Return the level at each of ``points``: (...) float32."""
        squared = np.zeros(points.shape[:-1], np.float32)
        for axis in self.axes:
            along = (points - self.centre) @ axis
            squared += along * along
        return np.sqrt(squared)

    def contains(self, points: Points, size: float = 1.0) -> Mask:
        """Return which points lie inside the ellipsoid scaled by ``size`` about its centre."""
        return self.level(points) < size

    def at(self, unit: tuple[float, float, float]) -> npt.NDArray[np.float32]:
        """Return the point whose place along the axes, in radii, is ``unit``: (3,) LPS mm."""
        return self.centre + np.linalg.solve(self.axes, np.asarray(unit, np.float32))


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves.

    Attributes:
        vectors: (M, 3) wave vectors in radians per mm.
        phases: (M,) radians.
        amplitudes: (M, D).
    """

    vectors: npt.NDArray[np.float32]
    phases: npt.NDArray[np.float32]
    amplitudes: npt.NDArray[np.float32]

    @classmethod
    def make(
        cls,
        rng: np.random.Generator,
        wavelengths: tuple[float, float],
        amplitude: float,
        *,
        count: int,
        fields: int = 1,
    ) -> "Waves":
        """Return ``fields`` random fields with standard deviation ``amplitude`` and wavelengths (shortest, longest)."""
        lengths = rng.uniform(*wavelengths, size=(count, 1))
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        amplitudes = rng.normal(size=(count, fields))
        amplitudes *= amplitude * np.sqrt(2.0) / np.linalg.norm(amplitudes, axis=0)
        return cls(
            (2 * np.pi * directions / lengths).astype(np.float32),
            rng.uniform(0, 2 * np.pi, count).astype(np.float32),
            amplitudes.astype(np.float32),
        )

    def at(self, points: Points) -> Scalar:
        """Return the fields at ``points``: (..., D) float32."""
        total = np.zeros((*points.shape[:-1], self.amplitudes.shape[1]), np.float32)
        for vector, phase, amplitude in zip(self.vectors, self.phases, self.amplitudes, strict=True):
            total += np.sin(points @ vector + phase)[..., None] * amplitude
        return total


def small_rotation(rng: np.random.Generator, largest: float) -> npt.NDArray[np.float64]:
    """Return a 3x3 rotation by at most ``largest`` radians about a random axis (Rodrigues' formula)."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(-largest, largest)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
