"""What an image is, for the module to show before anything is done with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress

if TYPE_CHECKING:
    from FedSegCore.volumes.volume import Volume

MOST_LABELS = 32
"""A scan holds more different values than this; an annotation, saved as if it were a scan, does not."""
_FEWEST_VOXELS = 1000


def inspect_image(path: Path, modality: str | None, frame: int | None, progress: Progress) -> dict[str, Any]:
    """Return what ``describe_volume`` says of the image in ``path``: modality with confidence and reason, size, ...

    Raises:
        BadInputError: ``image.*``, ``dicom.*``; ``image.labels``: it is an annotation, chosen by mistake.
    """
    from FedSegCore.volumes.description import describe_volume
    from FedSegCore.volumes.reading import read_volume

    progress.update(0.0, "reading the image")
    volume = read_volume(path, modality=modality, frame=frame)
    progress.update(0.6, "looking at the intensities")
    _refuse_labels(volume)
    facts = describe_volume(volume)
    progress.update(1.0, "done")
    return facts


def _refuse_labels(volume: "Volume") -> None:
    array = volume.array
    if array.dtype.kind not in "iu" or array.size < _FEWEST_VOXELS or volume.channels > 1:
        return
    # A part first: nearly every scan shows there already that it is one.
    if len(np.unique(array[..., ::4, ::4])) > MOST_LABELS or (count := len(np.unique(array))) > MOST_LABELS:
        return
    raise BadInputError(
        "image.labels",
        f"This looks like an annotation and not like a scan: it holds only {count} different numbers.",
        "Choose the image it belongs to.",
    )
