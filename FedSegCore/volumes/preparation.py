"""An image as a network wants it, and the way back onto the voxels the user gave."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes import geometry, pixels, sampling
from FedSegCore.volumes.geometry import Orientation
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    import torch

MAX_PREPARED_VOXELS = 400_000_000
"""Most voxels of a prepared image; more comes from a wrong spacing in the header."""

_SAMPLE = 4_000_000
_SLAB = 16
_PICTURES = ("US", "IVUS", "ES", "XA", "RF", "CR", "DX")
"""Modalities whose single images lie in any plane; those of all others are slices of a volume."""


@dataclass(frozen=True)
class Prepared:
    """A network's input with its place, and the place it came from.

    Attributes:
        image: float32 (c, k, j, i), oriented as ``network_orientation`` says, in [0, 1].
        grid: where these voxels lie.
        original: where the image's own voxels lie; results go back onto exactly these.
    """

    image: npt.NDArray[np.float32]
    grid: Grid
    original: Grid

    @property
    def orientation(self) -> Orientation:
        """How the original's axes were reordered and flipped."""
        return network_orientation(self.original)

    @property
    def oriented(self) -> Grid:
        """The original grid after reordering and flipping."""
        return self.orientation.grid(self.original)


def network_orientation(grid: Grid) -> Orientation:
    """Return how the axes of an image are turned for a network: towards LPS, so that slices are axial.

    A single slice in another plane keeps its own rows and columns: turned, it would fall into slices of one row each.
    """
    towards = Orientation.towards(grid, "LPS")
    if not is_across(grid):
        return towards
    single = grid.shape[::-1].index(1)
    j, i = (n for n in (2, 1, 0) if n != single)
    return Orientation((i, j, single), (False, False, False))


def is_across(grid: Grid) -> bool:
    """Return whether an image is a single slice in another plane than (most nearly) the axial one."""
    sizes = grid.shape[::-1]
    return sizes.count(1) == 1 and Orientation.towards(grid, "LPS").axes[2] != sizes.index(1)


def must_be_axial(modality: str) -> bool:
    """Return whether single slices of a modality are slices of a volume, hence of use in the axial plane only."""
    return modality not in _PICTURES


def prepared_grid(grid: Grid, preprocessing: Preprocessing) -> Grid:
    """Return the grid, turned by ``network_orientation``, on which a network of this preprocessing sees an image.

    Raises:
        BadInputError: ``image.too-big``: the spacing asks for an absurd number of voxels; ``image.not-axial``: a single
            slice of a volume, in a plane that no network here is trained on.
    """
    if is_across(grid) and must_be_axial(preprocessing.modality):
        raise BadInputError(
            "image.not-axial",
            f"This image is a single slice, and not an axial one; {preprocessing.modality} is seen in axial slices.",
            "Give the whole volume, or an axial slice.",
        )
    oriented = network_orientation(grid).grid(grid)
    if preprocessing.in_plane_size is not None:
        target = geometry.square_grid(oriented, preprocessing.in_plane_size)
        target = geometry.grid_with_spacing(target, (None, None, preprocessing.spacing[2]))
    else:
        target = geometry.grid_with_spacing(oriented, preprocessing.spacing)
    if int(np.prod(target.shape, dtype=object)) > MAX_PREPARED_VOXELS:
        extent = " x ".join(f"{n * s:.0f}" for n, s in zip(oriented.shape[::-1], oriented.spacing, strict=True))
        raise BadInputError(
            "image.too-big",
            f"By its header this image covers {extent} mm, too much to be segmented.",
            "Correct the image's spacing, or crop it.",
        )
    return target


def prepare(volume: Volume, preprocessing: Preprocessing) -> Prepared:
    """Reorient an image (``network_orientation``), map it to [0, 1], and bring it to the network's spacing or size.

    Linear interpolation, averaging where voxels get fewer. Percentiles are those of at most 4 million evenly spread
    voxels. With ``in_plane_size`` slices are padded with 0. Colour becomes grey, or grey three equal channels, as
    ``preprocessing.channels`` says.

    Raises:
        BadInputError: ``image.too-big``, ``image.not-axial``, ``image.constant``, ``image.not-finite``,
            ``image.not-hounsfield``.
    """
    target = prepared_grid(volume.grid, preprocessing)
    array, _ = pixels.finite(pixels.compact(volume.array))
    low, high = intensity_range(array, preprocessing)
    orientation = network_orientation(volume.grid)
    oriented = orientation.grid(volume.grid)
    voxels = orientation.apply(array)
    padded = preprocessing.in_plane_size is not None
    out = np.empty((preprocessing.channels, oriented.shape[0], *target.shape[1:]), np.float32)
    flat = _slices_of(target, oriented.shape[0], oriented)
    # A few slices at a time: the full-size image never exists as float32.
    for start in range(0, oriented.shape[0], _SLAB):
        part = slice(start, start + _SLAB)
        slab = _to_channels(voxels[:, part].astype(np.float32, order="C"), preprocessing.channels)
        slab -= low
        slab *= 1.0 / (high - low)
        np.clip(slab, 0.0, 1.0, out=slab)
        depth = slab.shape[1]
        out[:, part] = sampling.interpolate(
            slab, _slices_of(oriented, depth, oriented), _slices_of(flat, depth, oriented), padded=padded
        )
    image = sampling.interpolate(out, flat, target)
    return Prepared(np.clip(image, 0.0, 1.0, out=image), target, volume.grid)


def intensity_range(array: npt.NDArray[Any], preprocessing: Preprocessing) -> tuple[float, float]:
    """Return the intensities that become 0 and 1.

    Raises:
        BadInputError: ``image.constant``; ``image.not-hounsfield``: a CT window below zero, but no voxel below zero.
    """
    if preprocessing.window is not None:
        low, high = preprocessing.window
        if low < 0 and array.min() >= 0:
            raise BadInputError(
                "image.not-hounsfield",
                "This image is to be read as CT in Hounsfield units, but no voxel lies below 0.",
                "Give the original CT (not a windowed or 8-bit copy), or choose the right modality.",
            )
        return low, high
    assert preprocessing.percentiles is not None
    values = pixels.evenly_spread(array, _SAMPLE)
    low, high = (float(value) for value in np.percentile(values, preprocessing.percentiles))
    if not low < high:
        low, high = float(array.min()), float(array.max())
    if not low < high:
        raise BadInputError(
            "image.constant", "Every voxel of this image has the same value: it is empty.", "Choose another image."
        )
    return low, high


def _slices_of(grid: Grid, depth: int, like: Grid) -> Grid:
    """Return ``grid``'s in-plane lattice with ``depth`` slices placed as the first ones of ``like``."""
    cosines = np.reshape(grid.direction, (3, 3))
    along = cosines[:, 2] @ (np.array(like.origin) - np.array(grid.origin))
    x, y, z = (float(value) for value in np.array(grid.origin) + along * cosines[:, 2])
    a, b, _ = grid.spacing
    return Grid((depth, *grid.shape[1:]), (a, b, like.spacing[2]), (x, y, z), grid.direction)


def _to_channels(array: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32]:
    if array.shape[0] == channels:
        return array
    if channels == 1:
        return pixels.luminance(array)
    return np.repeat(array[:1], channels, axis=0)


def prepare_labels(labels: Volume, prepared: Prepared) -> npt.NDArray[np.uint8]:
    """Return a label map (contract values) as uint8 (k, j, i) on the prepared grid, by nearest voxels.

    The label map may be flipped or cropped against the image as long as its voxels lie on the image's.

    Raises:
        BadInputError: ``labels.other-grid``, ``labels.not-integers``.
    """
    array = labels.array[:1]
    if array.dtype.kind not in "iub" or array.min() < 0 or array.max() > np.iinfo(np.uint8).max:
        raise BadInputError(
            "labels.not-integers",
            "A label map holds whole numbers from 0 to 255; this one does not.",
            "Check the label map, and the site's mapping of its numbers.",
        )
    array = array.astype(np.uint8, copy=False)
    array = prepared.orientation.apply(labels_on(labels.with_array(array), prepared.original).array)
    return np.ascontiguousarray(sampling.take_nearest(array, prepared.oriented, prepared.grid)[0])


def labels_on(labels: Volume, grid: Grid) -> Volume:
    """Return a label map on its image's ``grid``; it may be flipped or cropped if its voxels lie on the image's.

    Voxels that the label map does not reach are 0. A tenth of a voxel is no difference.

    Raises:
        BadInputError: ``labels.other-grid``.
    """
    if labels.grid.close_to(grid, 0.1 * min(grid.spacing)):
        return labels
    steps = np.linalg.inv(grid.affine()) @ labels.grid.affine()
    first = steps[:3, 3]
    last = (steps @ [*(n - 1 for n in labels.grid.shape[::-1]), 1.0])[:3]
    whole = all(np.abs(corner - np.rint(corner)).max() < 0.1 for corner in (first, last))
    cells = np.abs(np.rint(steps[:3, :3]))
    if not whole or (cells.sum(0) != 1).any() or (cells.sum(1) != 1).any():
        raise BadInputError(
            "labels.other-grid",
            "The label map does not lie on the voxels of its image.",
            "Save the annotation in the geometry of the image (in 3D Slicer: export with the image as reference).",
        )
    return geometry.resample(labels, grid, "nearest")


def restore_labels(array: npt.NDArray[Any], prepared: Prepared) -> Volume:
    """Bring labels (k, j, i) on the prepared grid back onto exactly the original grid, uint8, by nearest voxels."""
    whole = sampling.take_nearest(array.astype(np.uint8, copy=False)[None], prepared.grid, prepared.oriented)
    back = np.ascontiguousarray(prepared.orientation.undo(whole))
    return Volume(back, prepared.original, source="segmentation")


def restore_scores(array: npt.NDArray[Any], prepared: Prepared) -> Volume:
    """Bring scores (c, k, j, i) on the prepared grid back onto exactly the original grid, float32, linearly."""
    whole = sampling.interpolate(array, prepared.grid, prepared.oriented)
    back = np.ascontiguousarray(prepared.orientation.undo(whole))
    return Volume(back, prepared.original, source="segmentation")


def standardise(batch: "torch.Tensor") -> "torch.Tensor":
    """Return (N, C, ...) float tensors with zero mean and unit variance per sample over all its axes.

    A sample without any contrast becomes zeros.
    """
    axes = tuple(range(1, batch.ndim))
    centred = batch - batch.mean(axes, keepdim=True)
    return centred / centred.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-6)
