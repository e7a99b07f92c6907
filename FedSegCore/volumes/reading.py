"""Image files → :class:`Volume`; everything unusable is refused with a code and a remedy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.volumes import file_checks, pixels
from FedSegCore.volumes.dicom import is_time_series, read_dicom_folder
from FedSegCore.volumes.dicom_frames import checked_frames
from FedSegCore.volumes.geometry import checked_grid, nearest_orthonormal
from FedSegCore.volumes.pictures import picture_format, read_picture
from FedSegCore.volumes.volume import Grid, Volume

_SOURCES = {
    "NiftiImageIO": "nifti",
    "NrrdImageIO": "nrrd",
    "MetaImageIO": "metaimage",
    "GDCMImageIO": "dicom",
}
_MODALITY_KEYS = ("0008|0060", "modality", "Modality", "DICOM.Modality")
_FORMATS = "NIfTI, NRRD, MetaImage, DICOM, PNG or JPEG"


def read_volume(path: Path | str, *, modality: str | None = None, frame: int | None = None) -> Volume:
    """Read one image.

    Args:
        path: NIfTI, NRRD, MetaImage, PNG, JPEG or DICOM file, or a folder with one DICOM series.
        modality: DICOM modality code; None takes the file's own word for it, if any.
        frame: which volume of a 4-D image (or picture of a film), counted from 0.

    Returns:
        Volume in uint8, int16, uint16 or float32; a PNG or JPEG has voxels of 1 mm, since it carries no spacing that
        can be trusted. Colour: three channels for modality ``ES`` and for colour pictures
        of unknown modality, else grey. NaN and infinities are replaced by the smallest finite value and counted in
        ``metadata["not_finite"]``; ``metadata["modality_from"]`` says who named the modality. No patient data is kept.

    Raises:
        BadInputError: ``image.*`` or ``dicom.*``.
        UsageError: ``modality.unknown``.
    """
    if modality is not None and _modality_code(modality) != modality:
        raise UsageError(
            "modality.unknown",
            "The modality is not a DICOM modality code.",
            "Give CT, MR, US or ES in capital letters.",
        )
    image, source, named = _opened(Path(path), frame)
    word = modality or named
    array = _voxels(image)
    array, missing = pixels.finite(pixels.compact(array))
    if array.shape[0] > 1:
        array = pixels.colour_to_channels(array, word)
    if array.min() == array.max():
        raise BadInputError(
            "image.constant", "Every voxel of this image has the same value: it is empty.", "Choose another image."
        )
    metadata = {"number_type": image.GetPixelIDTypeAsString()}
    if missing:
        metadata["not_finite"] = str(missing)
    if word:
        metadata["modality_from"] = "user" if modality else "file"
    if frame is not None:
        metadata["frame"] = str(frame)
    grid = _grid(image, source)
    return Volume(array, grid, modality=word, source=source, metadata=metadata)


def read_label_map(path: Path | str) -> Volume:
    """Read a label map; the array is (1, k, j, i) of uint8, or uint16 where a number exceeds 255.

    Raises:
        BadInputError: as :func:`read_volume`, or ``labels.not-integers``, ``labels.several-layers``.
    """
    try:
        image, source, _ = _opened(Path(path), None, labels=True)
    except BadInputError as error:
        if error.code == "image.four-dimensional":
            raise _several_layers() from error
        raise
    array = _voxels(image)
    if array.shape[0] > 1 and not (array[1:3] == array[:1]).all():
        raise _several_layers()
    array = array[:1]
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= np.iinfo(np.uint16).max) or (array.dtype.kind == "f" and (array % 1 != 0).any()):
        raise BadInputError(
            "labels.not-integers",
            "This file is not a label map: its voxels are not whole numbers from 0 to 65535.",
            "Choose the file with the annotation, not the scan.",
        )
    kind = np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16
    return Volume(array.astype(kind), _grid(image, source), source=source)


def _several_layers() -> BadInputError:
    return BadInputError(
        "labels.several-layers",
        "This label map has several layers (its structures overlap) or colours.",
        "Save it as one label map of numbers, without overlaps: in 3D Slicer, export the segmentation to a label map "
        "(Segmentations module) and save that.",
    )


def _opened(path: Path, frame: int | None, *, labels: bool = False) -> tuple[sitk.Image, str, str | None]:
    """Return what ``_load`` does; a file that the system does not give is told in words, without its path."""
    try:
        return _load(path, frame, labels=labels)
    except OSError as error:
        raise BadInputError(
            "image.no-access",
            f"The image cannot be opened: {error.strerror or type(error).__name__}.",
            "Look whether you may read the file, and whether its disk or network share is still there.",
        ) from error


def _load(path: Path, frame: int | None, *, labels: bool = False) -> tuple[sitk.Image, str, str | None]:
    """Return the image (three axes at most), where it comes from, and the modality it names."""
    # ITK warns on the process's stderr, with paths; what matters is checked and refused here.
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    if path.is_dir():
        image, named = read_dicom_folder(path)
        return _only_frame(image, frame), "dicom", _modality_code(named)
    if not path.is_file():
        raise BadInputError("image.missing", "There is no such image file.", "Check the name and the folder.")
    picture = picture_format(path)
    if picture is not None:
        array = read_picture(path, numbers=labels)
        return _only_frame(sitk.GetImageFromArray(array, isVector=array.ndim == 3), frame), picture, None
    source = _source_of(path)
    if source == "nifti":
        file_checks.check_nifti(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.LoadPrivateTagsOff()
        with _skew_tolerated(path, source):
            image = _read_frame(reader, source, frame)
    except (RuntimeError, MemoryError) as error:
        raise _unreadable() from error
    named = next((reader.GetMetaData(key) for key in _MODALITY_KEYS if reader.HasMetaDataKey(key)), "")
    return image, source, _modality_code(named)


def _source_of(path: Path) -> str:
    name = path.name.lower()
    try:
        io = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    except RuntimeError:
        io = ""
    if io in _SOURCES:
        return _SOURCES[io]
    if name.endswith((".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".jpeg")):
        raise _unreadable()
    raise BadInputError("image.format", "This file is no image that can be read.", f"Give {_FORMATS}.")


def _unreadable() -> BadInputError:
    return BadInputError(
        "image.unreadable",
        "The image cannot be read: the file is damaged, cut short, or not what its name says.",
        f"Copy or export it again as {_FORMATS}, and try whether 3D Slicer opens it.",
    )


@contextmanager
def _skew_tolerated(path: Path, source: str) -> Iterator[None]:
    """Let ITK straighten a NIfTI sform that is not quite orthonormal; more skew than rounding is refused."""
    header = file_checks.read_nifti_header(path) if source == "nifti" else None
    if header is None or header.sform is None or header.has_qform or len(header.shape) < 3:
        yield
        return
    matrix = header.sform[:, :3]
    nearest_orthonormal(matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12))
    os.environ["ITK_NIFTI_SFORM_PERMISSIVE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("ITK_NIFTI_SFORM_PERMISSIVE", None)


def _read_frame(reader: sitk.ImageFileReader, source: str, frame: int | None) -> sitk.Image:
    reader.ReadImageInformation()
    size = list(reader.GetSize())
    complex_kinds = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
    if reader.GetPixelID() in complex_kinds:
        raise BadInputError(
            "image.complex", "The voxels of this image are complex numbers.", "Give the magnitude image instead."
        )
    file_checks.check_size(size)
    while len(size) > 4 and size[-1] == 1:
        size.pop()
    if len(size) > 4:
        raise BadInputError("image.five-dimensional", "This image has five axes.", "Save the volume you need.")
    film = source == "dicom" and len(size) == 3 and is_time_series(reader)
    if len(size) == 4 or film:
        chosen = chosen_frame(size[-1], frame)
        index = [0] * (len(size) - 1) + [chosen]
        reader.SetExtractIndex(index + [0] * (reader.GetDimension() - len(size)))
        collapsed = [*size[:-1], 1] if film else [*size[:-1], 0]
        reader.SetExtractSize(collapsed + [0] * (reader.GetDimension() - len(size)))
        return reader.Execute()
    image = reader.Execute()
    if source == "dicom" and len(size) == 3 and size[2] > 1:
        image = checked_frames(image, Path(reader.GetFileName()))
    if image.HasMetaDataKey("NRRD_kinds[pixel]") and image.GetMetaData("NRRD_kinds[pixel]") == "list":
        chosen = chosen_frame(image.GetNumberOfComponentsPerPixel(), frame)
        return sitk.VectorIndexSelectionCast(image, chosen)
    return _only_frame(image, frame)


def _only_frame(image: sitk.Image, frame: int | None) -> sitk.Image:
    if frame not in (None, 0):
        chosen_frame(1, frame)
    return image


def chosen_frame(frames: int, frame: int | None) -> int:
    """Return which of ``frames`` volumes to read; raises BadInputError if it is not said or not there."""
    if frame is None and frames > 1:
        raise BadInputError(
            "image.four-dimensional",
            f"This image holds {frames} volumes or frames, not one.",
            f"Say which one to take: 0 to {frames - 1}.",
        )
    if frame is not None and not 0 <= frame < frames:
        raise BadInputError(
            "image.no-such-frame", f"There is no frame {frame}: the image has {frames}.", f"Give 0 to {frames - 1}."
        )
    return frame or 0


def _voxels(image: sitk.Image) -> pixels.Array:
    """Return the voxels as (c, k, j, i); refuses vectors that are no colours."""
    array = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() == 2:
        array = array[None]
    if components == 1:
        return array[None]
    if components not in (3, 4) or array.dtype.name not in ("uint8", "uint16"):
        raise BadInputError(
            "image.vector",
            f"Every voxel of this image holds {components} numbers (a vector or tensor field), not one.",
            "Give a scan with one number per voxel.",
        )
    return np.moveaxis(array, -1, 0)


def _grid(image: sitk.Image, source: str) -> Grid:
    size = (*image.GetSize(), 1)[:3]
    shape = (size[2], size[1], size[0])
    if source in ("png", "jpeg"):
        return checked_grid(shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), Grid((1, 1, 1)).direction)
    if image.GetDimension() == 2:
        a, b, c, d = image.GetDirection()
        direction = (a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0)
        return checked_grid(shape, (*image.GetSpacing(), 1.0), (*image.GetOrigin(), 0.0), direction)
    return checked_grid(shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _modality_code(text: str) -> str | None:
    """Return a DICOM modality code from a header's word for it, None if it is none."""
    code = text.strip().upper().removeprefix("MET_MOD_")
    return (
        code if 2 <= len(code) <= 16 and code.isascii() and code.isalpha() and code not in ("OT", "UNKNOWN") else None
    )
