"""Inputs of any size through networks that pool: padded inside, cut back after."""

from collections.abc import Callable

import torch
from torch.nn import functional


def padded_size(size: tuple[int, ...], multiple: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``size`` rounded up to ``multiple`` per axis, with more than one element left at the lowest level.

    Normalising a single element over itself would always give zero, so the last axis is doubled where that would be
    the case.
    """
    rounded = [-(-side // step) * step for side, step in zip(size, multiple, strict=True)]
    if all(side == step for side, step in zip(rounded, multiple, strict=True)):
        rounded[-1] *= 2
    return tuple(rounded)


def pad_to_multiple(images: torch.Tensor, multiple: tuple[int, ...]) -> torch.Tensor:
    """Return ``images`` (N, C, [k,] j, i) grown to ``padded_size`` at the far ends by repeating their edge."""
    size = tuple(images.shape[2:])
    wanted = padded_size(size, multiple)
    if wanted == size:
        return images
    ends = [end for side, goal in zip(reversed(size), reversed(wanted), strict=True) for end in (0, goal - side)]
    return functional.pad(images, ends, mode="replicate")


def cut_to(images: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Return the first ``size`` ([k,] j, i) elements of ``images`` (N, C, [k,] j, i)."""
    for axis, side in enumerate(size, start=2):
        images = images.narrow(axis, 0, side)
    return images


def forward_padded(
    forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, multiple: tuple[int, ...]
) -> torch.Tensor:
    """Return ``forward(images)`` for images whose sides need not be multiples of the pooling.

    Args:
        forward: network that keeps the spatial size of inputs whose sides are multiples.
        images: float (N, C, [k,] j, i).
        multiple: what each spatial side must be a multiple of.
    """
    return cut_to(forward(pad_to_multiple(images, multiple)), tuple(images.shape[2:]))
