"""A folder with one DICOM series → one image with the geometry its slices' positions say."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.file_checks import check_size

_MODALITY = "0008|0060"
_FRAMES = "0028|0008"
_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"
_FILMS = ("US", "IVUS", "ES", "XA", "RF")

_SLICE_TOLERANCE = 0.05
"""Slice positions may be off by this fraction of the slice distance (rounding in the tags)."""


def is_time_series(reader: sitk.ImageFileReader) -> bool:
    """Return whether a DICOM file's third axis is time: a film of ultrasound, endoscopy or X-ray."""
    frames = reader.GetMetaData(_FRAMES) if reader.HasMetaDataKey(_FRAMES) else "1"
    modality = reader.GetMetaData(_MODALITY).strip() if reader.HasMetaDataKey(_MODALITY) else ""
    return frames.strip() not in ("", "0", "1") and modality in _FILMS


def read_dicom_folder(folder: Path) -> tuple[sitk.Image, str]:
    """Read the one DICOM series in ``folder`` (not its sub-folders).

    Returns:
        The 3-D image in rescaled units (HU for CT), and the content of its modality tag.

    Raises:
        BadInputError: ``dicom.none``, ``dicom.several-series``, ``dicom.uneven-slices``, ``dicom.gantry-tilt``,
            ``dicom.unreadable``, ``image.too-big``.
    """
    names = series_files(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    reader.LoadPrivateTagsOff()
    try:
        first = sitk.ImageFileReader()
        first.SetFileName(names[0])
        first.ReadImageInformation()
        if len(names) == 1 and is_time_series(first):
            raise BadInputError(
                "image.four-dimensional",
                f"This series is a film of {first.GetSize()[2]} frames.",
                "Give the DICOM file itself and say which frame to take.",
            )
        check_size((*first.GetSize()[:2], len(names)))
        image = reader.Execute()
    except RuntimeError as error:
        raise BadInputError(
            "dicom.unreadable",
            f"The {len(names)} DICOM files of this series cannot be read together.",
            "Copy the series again; open it in 3D Slicer to see whether it is whole.",
        ) from error
    if len(names) > 1:
        _place(image, reader, len(names))
    modality = reader.GetMetaData(0, _MODALITY) if reader.HasMetaDataKey(0, _MODALITY) else ""
    return image, modality


def series_files(folder: Path) -> Sequence[str]:
    """Return the files of the one DICOM series in ``folder``, in the order of its slices.

    Raises:
        BadInputError: ``dicom.none``, ``dicom.several-series``.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    names = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series]
    if not names:
        raise BadInputError(
            "dicom.none", "There is no DICOM image in this folder.", "Give the folder that holds the series itself."
        )
    if len(names) > 1:
        counts = ", ".join(str(len(files)) for files in names)
        raise BadInputError(
            "dicom.several-series",
            f"This folder holds {len(names)} DICOM series with {counts} images.",
            "Put the series you want in a folder of its own, or open it in 3D Slicer.",
        )
    return names[0]


def _numbers(reader: sitk.ImageSeriesReader, count: int, key: str) -> npt.NDArray[np.float64] | None:
    """Return one row of numbers per slice from a tag, None if a slice lacks it."""
    rows = []
    for index in range(count):
        if not reader.HasMetaDataKey(index, key):
            return None
        rows.append([float(part) for part in reader.GetMetaData(index, key).split("\\")])
    return np.array(rows)


def _place(image: sitk.Image, reader: sitk.ImageSeriesReader, count: int) -> None:
    """Set the image's geometry from all slices' positions; ITK trusts the first two or the first and last."""
    try:
        positions = _numbers(reader, count, _POSITION)
        orientations = _numbers(reader, count, _ORIENTATION)
    except ValueError:
        positions = orientations = None
    if positions is None or orientations is None or positions.shape[1] != 3 or orientations.shape[1] != 6:
        raise _uneven("some slices do not say where they lie")
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise _uneven("its slices are tilted against each other")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    steps = np.diff(positions, axis=0)
    depth = steps @ normal
    step = float(depth.mean())
    if step < 0:
        raise _uneven("its slices are out of order")
    if step < 1e-3 or np.abs(depth - step).max() > max(_SLICE_TOLERANCE * step, 2e-3):
        raise _uneven(f"the distance between slices goes from {depth.min():.2f} to {depth.max():.2f} mm")
    sideways = np.linalg.norm(steps.mean(0) - step * normal)
    if sideways > 1e-2 * step:
        raise BadInputError(
            "dicom.gantry-tilt",
            f"The slices are shifted sideways by {sideways:.2f} mm each: the scanner's gantry was tilted.",
            "Open the series in 3D Slicer, which corrects this on loading, save the volume and use that file.",
        )
    direction = np.stack([row, column, normal], axis=1)
    image.SetOrigin(positions[0].tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing((*image.GetSpacing()[:2], step))


def _uneven(why: str) -> BadInputError:
    return BadInputError(
        "dicom.uneven-slices",
        f"The DICOM slices do not form one regular volume: {why}.",
        "Look for missing or doubled images in the folder, or let 3D Slicer load the series and save it as a volume.",
    )
