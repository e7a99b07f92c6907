"""From probabilities on the network's grid to labels on the image's own voxels, a few slices at a time.

Probabilities, not labels, are interpolated: a border between two voxels of the network's grid then falls where the
probabilities cross, not on the nearest voxel's edge, and no thin structure is lost to rounding. All channels of a few
slices at a time: the probabilities of a whole full-size image never exist, however many labels there are.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from FedSegCore.common.progress import Progress
from FedSegCore.inference.certainty import Certainty, CertaintyCounter
from FedSegCore.volumes import sampling
from FedSegCore.volumes.preparation import Prepared
from FedSegCore.volumes.sampling import Taps
from FedSegCore.volumes.volume import Volume

SLAB_VOXELS = 2**25
"""Most probabilities on the image's own grid at once (128 MiB)."""


def most_probable(
    scores: npt.NDArray[np.floating], prepared: Prepared, progress: Progress
) -> tuple[Volume, dict[int, Certainty]]:
    """Return the most probable label of every original voxel, and how sure those labels are.

    Args:
        scores: probabilities (K + 1, k, j, i) on the prepared grid.
        prepared: knows the way back.
        progress: told of every slab; cancels between them.

    Returns:
        uint8 volume (1, k, j, i) on exactly the original grid, and label value → certainty, for the labels that occur.
    """
    depth, rows, columns = prepared.oriented.shape
    labels = np.zeros((1, depth, rows, columns), np.uint8)
    counter = CertaintyCounter(len(scores))
    along, across_rows, across_columns = sampling.axis_taps(prepared.grid, prepared.oriented)
    thick = max(1, SLAB_VOXELS // (len(scores) * rows * columns))
    for start in range(0, depth, thick):
        progress.update(start / depth, "back to the image's own grid")
        end = min(start + thick, depth)
        through, needed = along.part(slice(start, end))
        slab = _Slab(scores[:, needed].astype(np.float32), (through, across_rows, across_columns))
        slab.label(labels[0, start:end], counter)
    back = np.ascontiguousarray(prepared.orientation.undo(labels))
    return Volume(back, prepared.original, source="segmentation"), counter.found()


class _Slab(NamedTuple):
    """Probabilities (K + 1, k, j, i), float32, of some slices, and the taps along (k, j, i) that make the image's."""

    scores: npt.NDArray[np.float32]
    taps: tuple[Taps, Taps, Taps]

    def label(self, labels: npt.NDArray[np.uint8], counter: CertaintyCounter) -> None:
        """Write the most probable label into ``labels`` (k, j, i), which are 0, and count how sure they are.

        Where the background is the most probable on all that a voxel is made of, it is on the voxel: only the rest,
        often a small part of an image, is interpolated.
        """
        along, rows, columns = self.taps
        open_ones = self.scores[1:].max(0) >= self.scores[0]
        j, i = rows.looking_at(open_ones.any((0, 2))), columns.looking_at(open_ones.any((0, 1)))
        rest = self._totals()
        if j.stop > j.start:
            (own_rows, old_j), (own_columns, old_i) = rows.part(j), columns.part(i)
            part = sampling.mix(self.scores[:, :, old_j, old_i], (along, own_rows, own_columns))
            labels[:, j, i] = torch.from_numpy(part).max(0).indices.to(torch.uint8).numpy()
            rest -= counter.add(part, labels[:, j, i])
        counter.add_background(rest, labels.size - labels[:, j, i].size)

    def _totals(self) -> npt.NDArray[np.float64]:
        """Return the sum of each channel over the image's voxels, without interpolating them."""
        along, rows, columns = (own.totals(count) for own, count in zip(self.taps, self.scores.shape[1:], strict=True))
        in_rows = self.scores @ columns.astype(np.float32)
        sums: npt.NDArray[np.float64] = in_rows @ rows @ along
        return sums
