"""A folder with one DICOM series → one image with the geometry its slices' positions say."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.dicom_frames import checked_frames
from FedSegCore.volumes.dicom_geometry import Stack, regular_stack, uneven
from FedSegCore.volumes.file_checks import check_size

_MODALITY = "0008|0060"
_FRAMES = "0028|0008"
_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"
_PIXEL_SPACING = "0028|0030"
_SCALE = ("0028|1053", "0028|1052")
_SAME_SPACING_MM = 1e-3
_FILMS = ("US", "IVUS", "ES", "XA", "RF")


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
            ``dicom.unreadable``, ``dicom.scales-differ``, ``dicom.no-spacing``, ``image.too-big``,
            ``image.four-dimensional``.
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
        if first.GetSize()[2] > 1:
            return _one_file(first, len(names))
        check_size((*first.GetSize()[:2], len(names)))
        image = reader.Execute()
        if _scales_differ(reader, len(names)):
            # ITK takes the first slice's type of number for all, which rounds or cuts off what the others hold.
            reader.SetOutputPixelType(sitk.sitkFloat32)
            image = reader.Execute()
    except RuntimeError as error:
        raise BadInputError(
            "dicom.unreadable",
            f"The {len(names)} DICOM files of this series cannot be read together.",
            "Copy the series again; open it in 3D Slicer to see whether it is whole.",
        ) from error
    if len(names) > 1:
        _stack(reader, len(names)).place(image)
    modality = reader.GetMetaData(0, _MODALITY) if reader.HasMetaDataKey(0, _MODALITY) else ""
    return image, modality


def _one_file(reader: sitk.ImageFileReader, files: int) -> tuple[sitk.Image, str]:
    """Read the slices of an Enhanced DICOM file, which must be the only one of its series."""
    if files > 1:
        raise uneven(f"{files} files hold several slices each")
    check_size(reader.GetSize())
    image = checked_frames(reader.Execute(), Path(reader.GetFileName()))
    return image, reader.GetMetaData(_MODALITY) if reader.HasMetaDataKey(_MODALITY) else ""


def series_files(folder: Path) -> Sequence[str]:
    """Return the files of the one DICOM series in ``folder``, in the order of its slices.

    Raises:
        BadInputError: ``dicom.none``, ``dicom.several-series``, ``dicom.unreadable``.
    """
    try:
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        names = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series]
    except RuntimeError as error:
        raise BadInputError(
            "dicom.unreadable",
            "One of the DICOM files in this folder is damaged.",
            "Copy the series again; open it in 3D Slicer to see whether it is whole.",
        ) from error
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


def _scales_differ(reader: sitk.ImageSeriesReader, count: int) -> bool:
    """Return whether slices have different rescale slopes or intercepts, as in PET and MR of some makers."""
    scales = {
        tuple(reader.GetMetaData(index, key).strip() if reader.HasMetaDataKey(index, key) else "" for key in _SCALE)
        for index in range(count)
    }
    return len(scales) > 1


def _stack(reader: sitk.ImageSeriesReader, count: int) -> Stack:
    """Return the stack that all slices' positions say; ITK trusts the first two or the first and last."""
    try:
        positions = _numbers(reader, count, _POSITION)
        orientations = _numbers(reader, count, _ORIENTATION)
        sizes = _numbers(reader, count, _PIXEL_SPACING)
    except ValueError:
        positions = orientations = sizes = None
    stack = regular_stack(positions, orientations)
    # ITK takes 1 mm where a slice does not say, and the first slice's for all.
    if sizes is None:
        raise BadInputError(
            "dicom.no-spacing",
            "The DICOM slices do not say how large their pixels are.",
            "Take the series from the archive again; what removed names may have removed this, too.",
        )
    if np.ptp(sizes, axis=0).max() > _SAME_SPACING_MM:
        raise uneven("its slices do not have one distance between voxels")
    return stack
