"""Voxels as read from a file → channels and a number type the rest works with."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError

Array = npt.NDArray[Any]

_KEPT = ("uint8", "int16", "uint16", "float32")
# ITU-R BT.601 weights, as PNG and JPEG tools use for grey.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_MOST_MISSING = 0.5


def compact(array: Array) -> Array:
    """Return ``array`` in uint8, int16, uint16 or float32, whichever holds its values.

    Whole numbers stay exact where they fit 16 bits; float64 becomes float32.
    """
    if array.dtype.name in _KEPT:
        return array
    if array.dtype.kind in "iu":
        low, high = array.min(), array.max()
        for kind in (np.uint8, np.int16, np.uint16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return array.astype(kind)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def evenly_spread(array: Array, most: int) -> Array:
    """Return at most ``most`` values of ``array``, evenly spread and from every row and column; all if it is small."""
    step = -(-array.size // most)
    while math.gcd(step, array.shape[-1]) > 1:
        step += 1
    return np.ravel(array, order="K")[::step]


def finite(array: Array) -> tuple[Array, int]:
    """Return ``array`` with NaN and infinities replaced by its smallest finite value, and how many there were.

    Raises:
        BadInputError: ``image.not-finite``: more than half of the voxels are not numbers.
    """
    if array.dtype.kind != "f":
        return array, 0
    good = np.isfinite(array)
    missing = int(array.size - np.count_nonzero(good))
    if missing > _MOST_MISSING * array.size:
        raise BadInputError(
            "image.not-finite",
            f"{missing} of {array.size} voxels of this image are not numbers (NaN or infinite).",
            "Export the image again from its source.",
        )
    if missing:
        array = np.where(good, array, array[good].min())
    return array, missing


def luminance(array: Array) -> Array:
    """Return (1, k, j, i) grey of RGB (3, k, j, i), in the same number type."""
    grey = np.tensordot(_LUMINANCE, array.astype(np.float32), axes=1)[None]
    return np.rint(grey).astype(array.dtype) if array.dtype.kind in "iu" else grey


def is_grey(array: Array) -> bool:
    """Return whether the channels of (3, k, j, i) are all the same, give or take JPEG's rounding."""
    values = array.astype(np.float32)
    spread = values.max(0) - values.min(0)
    return bool(spread.mean() <= 0.01 * max(float(np.ptp(values)), 1e-6))


def colour_to_channels(array: Array, modality: str | None) -> Array:
    """Return RGB or RGBA (3 or 4, k, j, i) as RGB for endoscopy or unknown colour pictures, else as grey.

    Raises:
        BadInputError: ``image.colour-volume``: a stack of colour slices that is no endoscopy.
    """
    array = array[:3]
    if modality == "ES":
        return array
    if is_grey(array):
        return luminance(array)
    if array.shape[1] > 1:
        raise BadInputError(
            "image.colour-volume",
            f"This image has {array.shape[1]} slices in colour; volumes are segmented in grey.",
            "Choose the scan itself, not a colour rendering of it.",
        )
    return array if modality is None else luminance(array)
