"""Volumes → files, never half written."""

from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

from FedSegCore.common.errors import CannotDoHereError, UsageError
from FedSegCore.common.files import whole_file
from FedSegCore.volumes.geometry import to_sitk
from FedSegCore.volumes.volume import Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")


def write_volume(
    volume: Volume, path: Path | str, *, fields: Mapping[str, str] | None = None, compressed: bool = True
) -> None:
    """Write a volume as NIfTI, NRRD or MetaImage, by the file name's suffix; NRRD and MetaImage name the modality.

    Args:
        volume: several channels become a vector image.
        path: ends in one of :data:`SUFFIXES`; its folder must exist.
        fields: more key/value fields for an NRRD header.
        compressed: False writes larger files sooner; a plain ``.nii`` never is.

    Raises:
        UsageError: ``file.suffix``.
        CannotDoHereError: ``file.unwritable``.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise UsageError(
            "file.suffix", "The name of the file to write does not say its format.", f"End it in {', '.join(SUFFIXES)}."
        )
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    image = to_sitk(volume)
    if volume.modality is not None:
        image.SetMetaData("Modality", volume.modality)
    for key, value in (fields or {}).items():
        image.SetMetaData(key, value)
    try:
        with whole_file(path) as beside:
            sitk.WriteImage(image, str(beside), useCompression=compressed and not path.name.lower().endswith(".nii"))
    except (RuntimeError, OSError) as error:
        raise unwritable() from error


def unwritable() -> CannotDoHereError:
    """Return the error that says that a result cannot be written where it should be."""
    return CannotDoHereError(
        "file.unwritable",
        "The result cannot be written there.",
        "Check that the folder exists, that you may write in it, and that the disk is not full.",
    )
