"""Smooth random fields: quadratic B-splines over a coarse control grid, axis by axis."""

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import BSpline
from torch import Tensor

DEGREE = 2


def bspline_basis(size: int, intervals: int) -> npt.NDArray[np.float64]:
    """Return what each control point adds at each voxel of one axis: (size, intervals + 2), rows sum to 1.

    The knots are equidistant and the axis covers ``intervals`` of them; voxel centres lie at (n + 1/2) / size of it.

    Args:
        size: voxels along the axis.
        intervals: how many times the axis is longer than the distance between control points.
    """
    knots = np.arange(-DEGREE, intervals + DEGREE + 1, dtype=np.float64)
    at = (np.arange(size) + 0.5) / size * intervals
    return BSpline.design_matrix(at, knots, DEGREE).toarray()


def smooth_field(control: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the spline surface of control points over a whole image.

    Args:
        control: (N, c, *counts), ``counts`` one per axis of ``shape``, each 3 or more.
        shape: voxels of the image along (k, j, i) or (j, i).

    Returns:
        Tensor (N, c, *shape) of ``control``'s dtype and device.
    """
    field = control
    for axis, size in enumerate(shape, start=2):
        basis = torch.from_numpy(bspline_basis(size, control.shape[axis] - DEGREE)).to(control)
        field = torch.movedim(torch.tensordot(field, basis, dims=([axis], [1])), -1, axis)
    return field
