"""What an image is, in a few facts that people and programs can read."""

from typing import Any

from FedSegCore.volumes.geometry import orientation_code
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.volume import Volume


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Return the facts about an image as values JSON can hold.

    Returns:
        ``modality``: {value, confidence 0..1, reason}; ``shape``: voxels along (i, j, k); ``spacing``: mm along
        (i, j, k); ``origin``: LPS mm of the first voxel; ``orientation``: where i, j, k point, as in ``"LPS"``;
        ``oblique``: whether the axes are turned against the patient's by more than 0.1 degree or so; ``channels``;
        ``value_range``: [smallest, largest]; ``number_type``; ``source``; ``not_finite``: voxels that were no numbers.
    """
    guess = detect_modality(volume)
    return {
        "modality": {"value": guess.modality, "confidence": guess.confidence, "reason": guess.reason},
        "shape": [int(n) for n in reversed(volume.grid.shape)],
        "spacing": list(volume.grid.spacing),
        "origin": list(volume.grid.origin),
        "orientation": orientation_code(volume.grid),
        "oblique": any(1e-3 < abs(cosine) < 0.999 for cosine in volume.grid.direction),
        "channels": volume.channels,
        "value_range": [float(volume.array.min()), float(volume.array.max())],
        "number_type": volume.array.dtype.name,
        "source": volume.source,
        "not_finite": int(volume.metadata.get("not_finite", "0")),
    }
