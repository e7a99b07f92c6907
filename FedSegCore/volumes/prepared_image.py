"""From an image file to what a network of its modality gets."""

from pathlib import Path
from typing import NamedTuple

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.preparation import Prepared, prepare
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from FedSegCore.volumes.reading import read_volume


class PreparedImage(NamedTuple):
    """An image as a network gets it, how it was prepared, and how sure its modality is (in [0, 1])."""

    prepared: Prepared
    preprocessing: Preprocessing
    confidence: float


def prepare_image(
    path: Path,
    progress: Progress,
    *,
    modality: str | None = None,
    frame: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> PreparedImage:
    """Read an image and prepare it.

    Args:
        path: image file or DICOM folder.
        progress: told of both steps.
        modality: DICOM modality code; None has it detected.
        frame: which volume of a 4-D image, from 0.
        preprocessing: how; None takes the modality's default.

    Raises:
        UsageError: ``modality.unknown``.
        BadInputError: ``image.*``; ``modality.unsupported``: the modality has no default.
    """
    progress.update(0.0, "reading the image")
    volume = read_volume(path, modality=modality, frame=frame)
    guess = detect_modality(volume)
    if preprocessing is None and guess.modality not in DEFAULT_PREPROCESSING:
        known = ", ".join(DEFAULT_PREPROCESSING)
        raise BadInputError(
            "modality.unsupported", f"{guess.modality} images are not known here.", f"Say the modality: one of {known}."
        )
    progress.update(0.5, "preparing the image")
    chosen = preprocessing or DEFAULT_PREPROCESSING[guess.modality]
    return PreparedImage(prepare(volume, chosen), chosen, guess.confidence)
