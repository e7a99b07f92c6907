"""Enhanced DICOM: one file with many slices, each with its own place and scale, which ITK does not check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.dicom_geometry import Rows, depths, regular_stack, uneven

_SAME_PLACE_MM = 1e-3


def checked_frames(image: sitk.Image, path: Path) -> sitk.Image:
    """Return a volume that ITK read from one file, its slices in the order and at the places their own groups say.

    A file without functional groups, which says no more of its slices than ITK knows, is returned as it is.

    Args:
        image: three axes; the frames along the third, in the order of the file.
        path: the file.

    Raises:
        BadInputError: ``dicom.unreadable``, ``dicom.uneven-slices``, ``dicom.gantry-tilt``, ``dicom.scales-differ``;
            ``image.four-dimensional``: several images of the same slice (times, echoes).
    """
    frames, shared = _functional_groups(path)
    if not frames:
        return image
    if len(frames) != image.GetSize()[2]:
        raise uneven("it does not say of every slice where it lies")
    said = _said_of(frames, shared)
    depth = depths(said.positions, said.orientations[0])
    order = np.argsort(depth, kind="stable")
    _refuse_repeated(depth[order])
    stack = regular_stack(said.positions[order], said.orientations[order])
    if (order != np.arange(len(order))).any():
        several = image.GetNumberOfComponentsPerPixel() > 1
        image = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image)[order], isVector=several)
    # Where frames are out of order ITK forgets this distance, too. DICOM gives that of rows (along j) first.
    image.SetSpacing((float(said.pixel_spacing[1]), float(said.pixel_spacing[0]), 1.0))
    stack.place(image)
    return image


class _Said(NamedTuple):
    """What functional groups say: place (n, 3) and orientation (n, 6) of every frame, mm along (j, i) of all."""

    positions: Rows
    orientations: Rows
    pixel_spacing: Rows


def _said_of(frames: Sequence[Any], shared: Any) -> _Said:
    """Return what the groups say; refuse what they leave out, and scales of which ITK would take the first for all."""
    try:
        positions = _rows(frames, shared, "PlanePositionSequence", "ImagePositionPatient")
        orientations = _rows(frames, shared, "PlaneOrientationSequence", "ImageOrientationPatient")
        sizes = _rows(frames, shared, "PixelMeasuresSequence", "PixelSpacing")
        scales = {_scale(frame, shared) for frame in frames}
    except (TypeError, ValueError) as error:
        raise _unreadable() from error
    if positions is None or orientations is None or positions.shape[1] != 3 or orientations.shape[1] != 6:
        raise uneven("some slices do not say where they lie")
    if sizes is None or sizes.shape[1] != 2 or np.ptp(sizes, axis=0).max() > 1e-3:
        raise uneven("its slices do not have one distance between voxels")
    if len(scales) > 1:
        raise BadInputError(
            "dicom.scales-differ",
            "The slices of this image have different scales (rescale slope or intercept).",
            "Export it as classic DICOM, one file for each slice, and give that folder.",
        )
    return _Said(positions, orientations, sizes[0])


def _functional_groups(path: Path) -> tuple[Sequence[Any], Any]:
    """Return the functional groups of every frame, and those that all frames share (None without)."""
    import pydicom

    tags = ["PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"]
    try:
        read = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
        frames, shared = (read.get(tag) or [] for tag in tags)
        return list(frames), shared[0] if shared else None
    except Exception as error:  # a damaged file raises anything
        raise _unreadable() from error


def _in_group(frame: Any, shared: Any, group: str, name: str) -> Any:
    """Return an attribute from a frame's own functional group, else from the shared one, else None."""
    for groups in (frame, shared):
        items = groups.get(group) if groups is not None else None
        if items:
            return items[0].get(name)
    return None


def _rows(frames: Sequence[Any], shared: Any, group: str, name: str) -> Rows | None:
    """Return one row of numbers per frame, None if a frame lacks them; raises ValueError where they are none."""
    found = [_in_group(frame, shared, group, name) for frame in frames]
    if any(value is None for value in found):
        return None
    rows = np.array(found, np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError("not one row of numbers per frame")
    return rows


def _scale(frame: Any, shared: Any) -> tuple[float, float]:
    slope, intercept = (
        _in_group(frame, shared, "PixelValueTransformationSequence", name)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    return (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))


def _refuse_repeated(depth: Rows) -> None:
    """Refuse ascending depths of which some are the same."""
    repeated = int((np.diff(depth) < _SAME_PLACE_MM).sum())
    if repeated:
        raise BadInputError(
            "image.four-dimensional",
            f"This image holds {len(depth)} pictures of {len(depth) - repeated} slices (times, echoes or directions).",
            "Export the volume you want as a series of its own, or save it from 3D Slicer.",
        )


def _unreadable() -> BadInputError:
    return BadInputError(
        "dicom.unreadable",
        "The DICOM file does not say in a readable way where its slices lie.",
        "Copy the series again; open it in 3D Slicer to see whether it is whole.",
    )
