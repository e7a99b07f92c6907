"""Generated patients as the files a site would have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from FedSegCore.phantoms.torso import Phantom
from FedSegCore.volumes.writing import write_volume


@dataclass(frozen=True)
class PatientFiles:
    """Where a patient was written.

    Attributes:
        image: the image.
        labels: its truth, a label map of contract values on the same grid.
    """

    image: Path
    labels: Path


def write_patient(
    folder: Path, case: str, phantom: Phantom, *, suffix: Literal[".nrrd", ".nii.gz", ".mha"] = ".nrrd"
) -> PatientFiles:
    """Write image and labels as ``<case><suffix>`` and ``<case>-labels<suffix>`` and return their paths.

    Args:
        folder: made if absent.
        case: the case id.
        phantom: what ``make_patient`` gave.
        suffix: the file format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = PatientFiles(folder / f"{case}{suffix}", folder / f"{case}-labels{suffix}")
    write_volume(phantom.image, files.image)
    write_volume(phantom.labels, files.labels)
    return files
