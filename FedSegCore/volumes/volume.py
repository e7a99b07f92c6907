"""The typed image everything else works on: voxels with their place in the patient."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where voxels lie in the patient (LPS world, mm), as in DICOM and ITK.

    Attributes:
        shape: number of voxels along (k, j, i), the array's order.
        spacing: mm between voxel centres along (i, j, k), ITK's order.
        origin: LPS position in mm of the centre of voxel i = j = k = 0.
        direction: 3x3 direction cosines, row-major; column n is the unit vector of axis n of (i, j, k).
    """

    shape: tuple[int, int, int]
    spacing: Vector = (1.0, 1.0, 1.0)
    origin: Vector = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def affine(self) -> npt.NDArray[np.float64]:
        """Return the 4x4 float64 matrix from voxel index (i, j, k, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def close_to(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Return whether both grids have the same shape and no corner voxel is more than ``tolerance`` mm apart."""
        if self.shape != other.shape:
            return False
        k, j, i = (n - 1 for n in self.shape)
        corners = np.array([[a, b, c, 1.0] for a in (0, i) for b in (0, j) for c in (0, k)])
        gap = corners @ (self.affine() - other.affine()).T
        return bool(np.abs(gap).max() <= tolerance)

    def voxel_volume_ml(self) -> float:
        """Return the volume of one voxel in millilitres."""
        return float(np.prod(self.spacing)) / 1000.0


@dataclass(frozen=True)
class Volume:
    """An image or a label map.

    Attributes:
        array: voxels with axes (c, k, j, i): channel first (always there, usually one), then ITK's z, y, x.
        grid: where the voxels lie.
        modality: DICOM modality code (``"CT"``, ``"MR"``, ``"US"``, ``"ES"`` endoscopy), None where unknown.
        source: the kind of thing it was read from (``"nifti"``, ``"dicom"`` …), never a path or a name.
        metadata: other facts kept from the file; never patient data.
    """

    array: npt.NDArray[Any]
    grid: Grid
    modality: str | None = None
    source: str = "memory"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.grid.shape:
            raise ValueError(f"array {self.array.shape} does not have axes (c, k, j, i) of grid {self.grid.shape}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def with_array(self, array: npt.NDArray[Any]) -> "Volume":
        """Return the same place and facts with other voxels of the same (k, j, i) shape."""
        return replace(self, array=array)
