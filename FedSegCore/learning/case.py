"""One image with its labels, as a site hands it to training."""

from collections.abc import Callable
from dataclasses import dataclass

from FedSegCore.volumes.volume import Volume


@dataclass(frozen=True)
class TrainingCase:
    """One image with its label map.

    Attributes:
        case_id: id inside its site (never a patient's name); what journals and messages may show.
        patient: pseudonym by which cases of one patient are kept on one side of the split.
        image: the image, any grid.
        labels: whole numbers (1, k, j, i) on the image's voxels (flipped or cropped if need be): contract values, 0
            background.
        annotated: contract values this case annotates; what is not listed is ignored by loss and scores.
    """

    case_id: str
    patient: str
    image: Volume
    labels: Volume
    annotated: tuple[int, ...]


@dataclass(frozen=True)
class CaseOnDisk:
    """A case that is read only when its turn comes, so that a cohort's raw images are never all in memory.

    Attributes:
        case_id: as in ``TrainingCase``.
        patient: as in ``TrainingCase``.
        read: reads it; what it raises sets the case aside, but for lack of memory and cancelling.
    """

    case_id: str
    patient: str
    read: Callable[[], TrainingCase]


CaseSource = TrainingCase | CaseOnDisk
