"""Where the slices of a DICOM volume lie: one regular volume, or a refusal that says why not."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError

Rows = npt.NDArray[np.float64]

_SLICE_TOLERANCE = 0.05
"""Slice positions may be off by this fraction of the slice distance (rounding in the tags)."""


@dataclass(frozen=True)
class Stack:
    """Slices one behind the other.

    Attributes:
        origin: LPS mm of the first slice's first voxel.
        direction: 3x3 direction cosines; columns are i, j and k.
        step: mm between slices.
    """

    origin: Rows
    direction: Rows
    step: float

    def place(self, image: sitk.Image) -> None:
        """Set the image's geometry; the distance of voxels within slices stays.

        Raises:
            BadInputError: ``dicom.uneven-slices``: the axes span no space.
        """
        image.SetOrigin(self.origin.tolist())
        try:
            image.SetDirection(self.direction.ravel().tolist())
        except RuntimeError as error:
            raise uneven("rows and columns of its slices do not say where they point") from error
        image.SetSpacing((*image.GetSpacing()[:2], self.step))


def depths(positions: Rows, orientation: Rows) -> Rows:
    """Return how far, in mm, slices at ``positions`` (n, 3) lie along the normal of an ``orientation`` (6,)."""
    along: Rows = positions @ np.cross(orientation[:3], orientation[3:])
    return along


def regular_stack(positions: Rows | None, orientations: Rows | None) -> Stack:
    """Return the stack that two or more slices form, in the order given.

    Args:
        positions: ImagePositionPatient (n, 3); None where a slice lacks it.
        orientations: ImageOrientationPatient (n, 6); None where a slice lacks it.

    Raises:
        BadInputError: ``dicom.uneven-slices``, ``dicom.gantry-tilt``.
    """
    if positions is None or orientations is None or positions.shape[1] != 3 or orientations.shape[1] != 6:
        raise uneven("some slices do not say where they lie")
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise uneven("its slices are tilted against each other")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    steps = np.diff(positions, axis=0)
    depth = steps @ normal
    step = float(depth.mean())
    _refuse_repeated(positions, normal)
    if step < 0:
        raise uneven("its slices are out of order")
    if step < 1e-3 or np.abs(depth - step).max() > max(_SLICE_TOLERANCE * step, 2e-3):
        raise uneven(f"the distance between slices goes from {depth.min():.2f} to {depth.max():.2f} mm")
    sideways = np.linalg.norm(steps.mean(0) - step * normal)
    if sideways > 1e-2 * step:
        raise BadInputError(
            "dicom.gantry-tilt",
            f"The slices are shifted sideways by {sideways:.2f} mm each: the scanner's gantry was tilted.",
            "Open the series in 3D Slicer, which corrects this on loading, save the volume and use that file.",
        )
    return Stack(positions[0], np.stack([row, column, normal], axis=1), step)


def _refuse_repeated(positions: Rows, normal: Rows) -> None:
    """Refuse slices of which several lie at the same depth: ITK then gives them in any order."""
    depth = np.sort(positions @ normal)
    places = 1 + int((np.diff(depth) > 1e-3).sum())
    if places < len(positions):
        raise uneven(
            f"{len(positions)} images lie at {places} places, so some are doubled, or there are several echoes or times"
        )


def uneven(why: str) -> BadInputError:
    """Return the error of slices that form no volume; ``why`` in plain words."""
    return BadInputError(
        "dicom.uneven-slices",
        f"The DICOM slices do not form one regular volume: {why}.",
        "Look for missing or doubled images in the folder, or let 3D Slicer load the series and save it as a volume.",
    )
