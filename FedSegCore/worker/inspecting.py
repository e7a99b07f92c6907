"""What an image is, for the module to show before anything is done with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from FedSegCore.common.progress import Progress


def inspect_image(path: Path, modality: str | None, frame: int | None, progress: Progress) -> dict[str, Any]:
    """Return modality (with confidence and reason), size and spacing of the image in ``path``.

    Returns:
        ``modality``: {value, confidence 0..1, reason}; ``shape``: voxels along (i, j, k); ``spacing``: mm along
        (i, j, k); ``channels``.
    """
    from FedSegCore.volumes.modality import detect_modality
    from FedSegCore.volumes.reading import read_volume

    progress.update(0.0, "Reading the image")
    volume = read_volume(path, modality=modality, frame=frame)
    progress.update(0.6, "Looking at the intensities")
    if modality is not None:
        volume = replace(volume, modality=modality)
    guess = detect_modality(volume)
    progress.update(1.0, "Done")
    return {
        "modality": {"value": guess.modality, "confidence": float(guess.confidence), "reason": guess.reason},
        "shape": [int(n) for n in reversed(volume.grid.shape)],
        "spacing": [float(mm) for mm in volume.grid.spacing],
        "channels": volume.channels,
    }
