"""Structures that are one piece: of what a network finds of them, only the largest piece is kept."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from FedSegCore.volumes.labels import LabelContract

_SLAB = 16


@dataclass(frozen=True)
class LeftOut:
    """What of a label lay apart from its largest piece.

    Attributes:
        label: the label's name.
        share: voxels left out over all that were found, in (0, 1).
    """

    label: str
    share: float


def keep_single_pieces(labels: npt.NDArray[np.uint8], contract: LabelContract) -> tuple[LeftOut, ...]:
    """Set to background whatever lies apart from the largest piece of a label that is ``single``; works in place.

    Voxels that touch with a corner belong together. A single slice is left as it is: it may cut a bent structure twice.

    Args:
        labels: (k, j, i), contract values.
        contract: says which labels are single.

    Returns:
        What was left out, in the contract's order; labels of one piece are not listed.
    """
    if min(labels.shape) == 1:
        return ()
    boxes = ndimage.find_objects(labels)
    left_out = []
    for label in contract.labels:
        box = boxes[label.value - 1] if label.single and label.value <= len(boxes) else None
        if box is None:
            continue
        found = labels[box] == label.value
        apart = _apart(found)
        if apart.any():
            labels[box][apart] = 0
            left_out.append(LeftOut(label.name, float(apart.sum() / found.sum())))
    return tuple(left_out)


def _apart(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the voxels of ``found`` (k, j, i) that do not belong to its largest piece."""
    pieces, count = ndimage.label(found, np.ones((3, 3, 3)))
    sizes = np.zeros(count + 1, np.int64)
    # A few slices at a time: NumPy counts in integers of twice the size.
    for start in range(0, len(pieces), _SLAB):
        sizes += np.bincount(pieces[start : start + _SLAB].ravel(), minlength=count + 1)
    apart: npt.NDArray[np.bool_] = pieces != 1 + sizes[1:].argmax()
    apart &= found
    return apart
