"""Random flips, rotation, zoom, stretch, shift and elastic deformation, the same for an image and its labels."""

import math

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms.utils import create_rotate
from torch import Tensor
from torch.nn import functional

from FedSegCore.augmentation.bspline import DEGREE, smooth_field
from FedSegCore.augmentation.config import SpatialConfig

ELASTIC_INTERVALS = 4
"""The elastic deformation's control points are a quarter of each side apart ..."""
ELASTIC_FRACTION = 0.03
"""... and move by this fraction of the side (standard deviation): bent, never folded in practice."""
_AXES = ("i", "j", "k")


class SpatialAugmentation:
    """Moves whole batches on any device: one resampling each for images (linear) and labels (nearest).

    What comes from outside the image is 0 (darkest; background). Rotation and zoom are rigid in the patient, given the
    spacing. An axis of one voxel stays in place: a one-slice volume is moved only within its slice.

    Args:
        config: what may happen, and how often.
        dimensions: 2 or 3.
    """

    def __init__(self, config: SpatialConfig, dimensions: int) -> None:
        if dimensions not in (2, 3):
            raise ValueError(f"images are 2-D or 3-D, not {dimensions}-D")
        self.config = config
        self.dimensions = dimensions

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        spacing: tuple[float, ...] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return moved copies of images and labels; those that chance leaves alone are unchanged to the bit.

        Args:
            images: float32 (N, C, j, i) or (N, C, k, j, i).
            labels: any real dtype, (N, j, i) or (N, k, j, i); kept.
            generator: CPU generator; advanced by the draw, image by image.
            spacing: mm along (i, j) or (i, j, k); None: equal.

        Raises:
            ValueError: the shapes do not belong together or to ``dimensions``.
        """
        if images.ndim != self.dimensions + 2 or labels.shape != (images.shape[0], *images.shape[2:]):
            raise ValueError(f"images {tuple(images.shape)} and labels {tuple(labels.shape)} do not fit")
        sides = images.shape[:1:-1]  # (i, j, k), the order of sampling grids
        spacing = spacing or (1.0,) * self.dimensions
        half = np.array([0.5 * n * s for n, s in zip(sides, spacing, strict=True)])
        draws = [self._draw(sides, half, generator) for _ in range(images.shape[0])]
        moved = [number for number, draw in enumerate(draws) if draw is not None]
        if not moved:
            return images.clone(), labels.clone()
        chosen = [draw for draw in draws if draw is not None]
        theta = torch.from_numpy(np.stack([matrix for matrix, _ in chosen])).to(images)
        part = images[moved]
        grid = functional.affine_grid(theta, list(part.shape), align_corners=False)
        control = torch.stack([control for _, control in chosen])
        if bool(control.any()):
            grid += smooth_field(control.to(grid), tuple(part.shape[2:])).movedim(1, -1)
        images, labels = images.clone(), labels.clone()
        images[moved] = functional.grid_sample(part, grid, mode="bilinear", align_corners=False)
        numbers = labels[moved].unsqueeze(1).to(grid.dtype)
        nearest = functional.grid_sample(numbers, grid, mode="nearest", align_corners=False)
        labels[moved] = nearest[:, 0].to(labels.dtype)
        return images, labels

    def _draw(
        self, sides: tuple[int, ...], half: npt.NDArray[np.float64], generator: torch.Generator
    ) -> tuple[npt.NDArray[np.float64], Tensor] | None:
        """Return one image's matrix from moved to original position and its elastic control points; None: no change.

        The matrix, (D, D + 1), is in a sampling grid's own units, -1 to 1 along each of (i, j, k).
        """
        dims, config = self.dimensions, self.config
        affine, elastic = (
            torch.rand(2, generator=generator) < torch.tensor([config.probability, config.elastic])
        ).tolist()
        # Drawn whether used or not, so that one image's luck does not change what the next one gets.
        angles, shift = torch.rand(2, 3, generator=generator, dtype=torch.float64).mul_(2).sub_(1).numpy()[:, :dims]
        zoom = 1 + config.scaling * (2 * float(torch.rand(1, generator=generator)) - 1)
        coins = (torch.rand(3, generator=generator)[:dims] < 0.5).tolist()
        control = torch.randn(dims, *[ELASTIC_INTERVALS + DEGREE] * dims, generator=generator)
        # Not drawn where it is off: so a federation without it keeps its draws.
        stretch = 1 + config.stretching * (2 * torch.rand(dims, generator=generator) - 1) if config.stretching else None
        flips = [coin and axis in config.flip_axes for coin, axis in zip(coins, _AXES, strict=False)]
        if not (affine or elastic or any(flips)):
            return None
        free = np.array([side > 1 for side in sides])
        matrix = np.eye(dims, dims + 1)
        if affine:
            matrix[:, :dims] = _rotation(math.radians(config.rotation_degrees) * angles, free) / zoom
            if stretch is not None:
                matrix[:, :dims] /= stretch.numpy()
            matrix[:, :dims] *= half[np.newaxis] / half[:, np.newaxis]
            matrix[:, dims] = 2 * config.shift_fraction * shift * free
        matrix[:, :dims] *= np.where(flips, -1.0, 1.0)
        # A side of the image is 2 in the sampling grid's units.
        scale = 2 * ELASTIC_FRACTION * float(elastic) * torch.from_numpy(free.astype(np.float32))
        return matrix, control * scale.reshape(-1, *[1] * dims)


def _rotation(angles: npt.NDArray[np.float64], free: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the rotation matrix on (i, j[, k]); in 3-D without turning an axis of one voxel out of its plane."""
    dims = len(angles)
    if dims == 2:
        return np.asarray(create_rotate(2, float(angles[0])))[:2, :2]
    around = [angle if free[[a for a in range(3) if a != axis]].all() else 0.0 for axis, angle in enumerate(angles)]
    return np.asarray(create_rotate(3, around))[:3, :3]
