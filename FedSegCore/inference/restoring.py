"""From probabilities on the network's grid to labels on the image's own voxels, a few slices at a time.

Probabilities, not labels, are interpolated: a border between two voxels of the network's grid then falls where the
probabilities cross, not on the nearest voxel's edge, and no thin structure is lost to rounding. All channels of a few
slices at a time: the probabilities of a whole full-size image never exist, however many labels there are.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from FedSegCore.common.progress import Progress
from FedSegCore.inference.certainty import Certainty, CertaintyCounter
from FedSegCore.volumes import sampling
from FedSegCore.volumes.preparation import Prepared
from FedSegCore.volumes.volume import Grid, Volume

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
    whole = prepared.oriented
    labels = np.empty((1, *whole.shape), np.uint8)
    counter = CertaintyCounter(len(scores))
    thick = max(1, SLAB_VOXELS // (len(scores) * whole.shape[1] * whole.shape[2]))
    for start in range(0, whole.shape[0], thick):
        progress.update(start / whole.shape[0], "back to the image's own grid")
        end = min(start + thick, whole.shape[0])
        # Two slices at least: from one alone, interpolation cannot tell how far apart they are.
        lower = max(0, min(start, whole.shape[0] - 2))
        target = _slices(whole, lower, min(max(end, lower + 2), whole.shape[0]))
        first, last = _needed(prepared.grid, target)
        part = sampling.interpolate(scores[:, first:last], _slices(prepared.grid, first, last), target)
        part = part[:, start - lower : end - lower]
        chosen = part.argmax(0).astype(np.uint8)
        labels[0, start:end] = chosen
        counter.add(part, chosen)
    back = np.ascontiguousarray(prepared.orientation.undo(labels))
    return Volume(back, prepared.original, source="segmentation"), counter.found()


def _slices(grid: Grid, start: int, end: int) -> Grid:
    """Return slices ``start`` to ``end`` (along k) of a grid."""
    step = np.reshape(grid.direction, (3, 3))[:, 2] * grid.spacing[2] * start
    x, y, z = (float(value) for value in np.array(grid.origin) + step)
    return replace(grid, shape=(end - start, *grid.shape[1:]), origin=(x, y, z))


def _needed(source: Grid, target: Grid) -> tuple[int, int]:
    """Return the range of the source's slices that interpolation at the target's slices looks at."""
    positions = sampling.axis_positions(source, target)[0]
    reach = int(np.ceil(max(1.0, target.spacing[2] / source.spacing[2]))) + 1
    first = min(max(0, int(np.floor(positions.min())) - reach), source.shape[0] - 1)
    last = max(min(source.shape[0], int(np.ceil(positions.max())) + reach + 1), first + 1)
    return first, last
