"""How sure a network is of each label, counted while its probabilities pass by."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Certainty:
    """How sure a network is of one label.

    Attributes:
        confidence: mean probability, in [0, 1], of the voxels given that label.
        expected_dice: the Dice coefficient, in [0, 1], that the probabilities themselves foretell: twice the
            probability within the label over its voxels plus all its probability anywhere. It also falls where the
            label should perhaps have been larger, which the mean within it cannot tell. Networks tend to be too sure
            of themselves, so it is rather too high than too low.
    """

    confidence: float
    expected_dice: float


class CertaintyCounter:
    """Sums what ``Certainty`` needs over parts of an image.

    Args:
        channels: labels and background.
    """

    def __init__(self, channels: int) -> None:
        self._within = np.zeros(channels)
        self._anywhere = np.zeros(channels)
        self._voxels = np.zeros(channels, np.int64)

    def add(self, probabilities: npt.NDArray[np.floating], chosen: npt.NDArray[np.uint8]) -> None:
        """Count a part: ``probabilities`` (K + 1, k, j, i) and the most probable label (k, j, i) of its voxels."""
        channels = len(self._voxels)
        best = np.take_along_axis(probabilities, chosen[None].astype(np.intp), axis=0).ravel()
        self._within += np.bincount(chosen.ravel(), best, channels)
        self._anywhere += probabilities.reshape(channels, -1).sum(1, dtype=np.float64)
        self._voxels += np.bincount(chosen.ravel(), minlength=channels)

    def found(self) -> dict[int, Certainty]:
        """Return label value → certainty, for the labels that occur (0 is the background)."""
        return {
            value: Certainty(
                confidence=min(1.0, float(self._within[value] / self._voxels[value])),
                expected_dice=min(1.0, float(2 * self._within[value] / (self._voxels[value] + self._anywhere[value]))),
            )
            for value in range(len(self._voxels))
            if self._voxels[value]
        }
