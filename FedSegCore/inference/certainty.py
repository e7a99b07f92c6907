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

    def add(self, probabilities: npt.NDArray[np.floating], chosen: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Count a part of the image.

        Args:
            probabilities: (K + 1, k, j, i).
            chosen: (k, j, i), the most probable label of its voxels.

        Returns:
            The sum of each label's probabilities in it, (K + 1,).
        """
        channels = len(self._voxels)
        self._within += np.bincount(chosen.ravel(), probabilities.max(0).ravel(), channels)
        sums: npt.NDArray[np.float64] = probabilities.reshape(channels, -1).sum(1, dtype=np.float64)
        self._anywhere += sums
        self._voxels += np.bincount(chosen.ravel(), minlength=channels)
        return sums

    def add_background(self, sums: npt.NDArray[np.float64], voxels: int) -> None:
        """Count ``voxels`` that are all background, by the ``sums`` (K + 1,) of the labels' probabilities in them."""
        self._within[0] += sums[0]
        self._anywhere += sums
        self._voxels[0] += voxels

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
