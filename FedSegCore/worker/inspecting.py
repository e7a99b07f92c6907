"""What an image is, for the module to show before anything is done with it."""

from pathlib import Path
from typing import Any

from FedSegCore.common.progress import Progress


def inspect_image(path: Path, modality: str | None, frame: int | None, progress: Progress) -> dict[str, Any]:
    """Return what ``describe_volume`` says of the image in ``path``: modality with confidence and reason, size, ..."""
    from FedSegCore.volumes.description import describe_volume
    from FedSegCore.volumes.reading import read_volume

    progress.update(0.0, "reading the image")
    volume = read_volume(path, modality=modality, frame=frame)
    progress.update(0.6, "looking at the intensities")
    facts = describe_volume(volume)
    progress.update(1.0, "done")
    return facts
