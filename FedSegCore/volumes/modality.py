"""Which modality an image is: the file's or the user's word, else a guess from its intensities with a confidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from FedSegCore.volumes.pixels import evenly_spread
from FedSegCore.volumes.volume import Volume

Array = npt.NDArray[Any]

_SAMPLE = 2_000_000
_AIR_HU = -700
_TISSUE_HU = (-200, 300)
_SATURATED = 0.003
"""Share of voxels at the very maximum that only a display window, not a scanner, produces."""

SURE = 0.7
"""Confidence of a guess from which on nobody is asked."""

_GRAIN = 0.1
"""Noise by brightness in the smoothest fifth of a picture's tissue; MR slices stay below."""


@dataclass(frozen=True)
class ModalityGuess:
    """What an image probably is.

    Attributes:
        modality: DICOM modality code: CT, MR, US, ES, or whatever the file says.
        confidence: 1.0 where the file or the user said it; below, about how often such a guess is right. Below 0.7 a
            person should be asked.
        reason: why, in plain words.
    """

    modality: str
    confidence: float
    reason: str


def detect_modality(volume: Volume) -> ModalityGuess:
    """Return the modality of a volume, never failing: the least certain guess is MR with low confidence."""
    if volume.modality is not None:
        said = "you said so" if volume.metadata.get("modality_from") == "user" else "the file says so"
        return ModalityGuess(volume.modality, 1.0, said)
    if volume.channels > 1:
        return _of_colour(volume.array)
    values = evenly_spread(volume.array, _SAMPLE)
    return _of_hounsfield(values) or _of_grey(volume, values)


def _of_colour(array: Array) -> ModalityGuess:
    red, _, blue = (float(channel.mean(dtype=np.float64)) for channel in array[:3])
    span = max(float(np.ptp(array)), 1e-6)
    if (red - blue) / span > 0.05:
        return ModalityGuess("ES", 0.9, "a colour picture with the red of tissue")
    spread = array[:3].max(0).astype(np.float32) - array[:3].min(0)
    if float((spread > 0.1 * span).mean()) < 0.3:
        return ModalityGuess("US", 0.5, "a grey picture with coloured marks, as Doppler ultrasound has")
    return ModalityGuess("ES", 0.2, "a colour picture, but not of the colour of tissue")


def _of_hounsfield(values: Array) -> ModalityGuess | None:
    """Return CT where the histogram has the air and soft tissue of Hounsfield units, None otherwise."""
    air = float((values < _AIR_HU).mean())
    tissue = float(((values > _TISSUE_HU[0]) & (values < _TISSUE_HU[1])).mean())
    if air > 0.005 and tissue > 0.02 and float(values.max()) > 0 and float(values.min()) > -10_000:
        return ModalityGuess("CT", 0.95, "values of air and soft tissue in Hounsfield units")
    if float(values.min()) < _TISSUE_HU[0] and tissue > 0.2 and float(values.max()) < 5000:
        return ModalityGuess("CT", 0.6, "values below zero as in Hounsfield units, but no air")
    return None


def _of_grey(volume: Volume, values: Array) -> ModalityGuess:
    top, black = values.max(), values.min()
    saturated, dark = float((values == top).mean()), float((values == black).mean())
    display = volume.array.dtype == np.uint8
    slices, rows, columns = volume.grid.shape
    if slices == 1 and display and not 0.95 < columns / rows < 1.05:
        return ModalityGuess("US", 0.7, "an 8-bit grey picture that is not square, as ultrasound screens are")
    if display and saturated > _SATURATED and dark > 0.2:
        return ModalityGuess("CT", 0.4, "8-bit, cut off at black and white as a windowed CT is")
    if slices == 1 and display and _has_speckle(volume.array[0, 0]):
        return ModalityGuess("US", 0.55, "an 8-bit grey picture with the grain of ultrasound")
    if display:
        return ModalityGuess("MR", 0.45, "8-bit grey values without Hounsfield units")
    return ModalityGuess("MR", 0.75 if slices > 1 else 0.6, "grey values that are not Hounsfield units")


def _has_speckle(picture: Array) -> bool:
    """Return whether even the smoothest fifth of the tissue in (j, i) is grainy, as speckle makes it."""
    side = 8
    rows, columns = (n // side * side for n in picture.shape)
    if rows < 4 * side or columns < 4 * side:
        return False
    tiles = picture[:rows, :columns].astype(np.float32).reshape(rows // side, side, columns // side, side)
    means, spreads = tiles.mean((1, 3)).ravel(), tiles.std((1, 3)).ravel()
    seen = means > 0.1 * picture.max()
    if np.count_nonzero(seen) < 16:
        return False
    return bool(np.percentile(spreads[seen] / means[seen], 20) > _GRAIN)
