"""A site's cases, prepared once and kept small in memory."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError, CancelledError, FedSegError
from FedSegCore.common.progress import Progress
from FedSegCore.learning.case import CaseSource, TrainingCase
from FedSegCore.volumes.geometry import share_of_square
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preparation import prepare, prepare_labels
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A case on its network grid.

    Attributes:
        case_id: id inside its site.
        patient: the patient's pseudonym.
        image: float16 (c, k, j, i) in [0, 1], before augmentation and standardising. Half precision keeps a cohort
            in memory; its step of at most 0.0005 is 0.2 HU of a 400 HU window.
        labels: uint8 (k, j, i), contract values.
        grid: where the voxels lie.
        annotated: contract values this case annotates, ascending.
        image_share: share of each slice's pixels, in (0, 1], that is image; the rest is padding to a square.
    """

    case_id: str
    patient: str
    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8]
    grid: Grid
    annotated: tuple[int, ...]
    image_share: float = 1.0


@dataclass(frozen=True)
class SetAside:
    """A case that is not used, and why: a stable code and plain words, fit for the site's own eyes."""

    case_id: str
    code: str
    reason: str


@dataclass(frozen=True)
class Cohort:
    """Prepared cases, split by patient.

    Attributes:
        training: cases to train on.
        validation: cases to score received models on.
        set_aside: cases that could not be used.

    Raises:
        BadInputError: ``cohort.patient-in-both``: a patient is in both parts.
    """

    training: tuple[PreparedCase, ...]
    validation: tuple[PreparedCase, ...] = ()
    set_aside: tuple[SetAside, ...] = ()

    def __post_init__(self) -> None:
        _refuse_shared_patients(self.training, self.validation)

    @classmethod
    def prepare(
        cls,
        training: Sequence[CaseSource],
        validation: Sequence[CaseSource],
        preprocessing: Preprocessing,
        contract: LabelContract,
        progress: Progress | None = None,
    ) -> "Cohort":
        """Prepare every case once; a case that cannot be used is set aside with its reason.

        Args:
            training: cases, or cases still on disk, to train on.
            validation: to score on; no patient in both.
            preprocessing: how images of the site's modality become network input.
            contract: the labels.
            progress: told of every case; cancels between cases.

        Raises:
            BadInputError: ``cohort.patient-in-both``.
        """
        _refuse_shared_patients(training, validation)
        told = progress or Progress()
        aside: list[SetAside] = []
        total = max(1, len(training) + len(validation))

        def usable(sources: Iterable[CaseSource], done: int) -> Iterator[PreparedCase]:
            for number, source in enumerate(sources, done):
                told.update(number / total, f"preparing case {number + 1} of {total}")
                try:
                    yield _prepare_case(source, preprocessing, contract)
                except (CancelledError, MemoryError):
                    raise
                except FedSegError as error:
                    aside.append(SetAside(source.case_id, error.code, f"{error.what} {error.remedy}"))
                except Exception as error:  # noqa: BLE001 - whatever one case does must not end the others' round
                    # Its text may hold a path, which our logs leave out; its kind does not.
                    _log.exception("a case was set aside")
                    aside.append(SetAside(source.case_id, "case.unreadable", _unforeseen(error)))

        ready = tuple(usable(training, 0)), tuple(usable(validation, len(training)))
        return cls(*ready, tuple(aside))

    @classmethod
    def pooled(cls, cohorts: Sequence["Cohort"]) -> "Cohort":
        """Return all cases of several sites as one cohort (the baseline that breaks the walls down)."""
        return cls(
            tuple(case for cohort in cohorts for case in cohort.training),
            tuple(case for cohort in cohorts for case in cohort.validation),
            tuple(case for cohort in cohorts for case in cohort.set_aside),
        )

    def num_examples(self, dimensions: int) -> int:
        """Return n_k: training slices for a 2-D network, training cases for a 3-D one."""
        return len(self.training) if dimensions == 3 else sum(len(case.labels) for case in self.training)


def _unforeseen(error: Exception) -> str:
    return f"The case cannot be read or prepared ({type(error).__name__}). Copy or export its image and labels again."


def _refuse_shared_patients(
    training: Sequence[CaseSource | PreparedCase], validation: Sequence[CaseSource | PreparedCase]
) -> None:
    both = {case.patient for case in training} & {case.patient for case in validation}
    if both:
        raise BadInputError(
            "cohort.patient-in-both",
            f"{len(both)} patient(s) are in both the training and the validation part.",
            "Split the cases by patient.",
        )


def _prepare_case(source: CaseSource, preprocessing: Preprocessing, contract: LabelContract) -> PreparedCase:
    case = source if isinstance(source, TrainingCase) else source.read()
    _check_case(case, preprocessing, contract)
    prepared = prepare(case.image, preprocessing)
    labels = prepare_labels(case.labels, prepared)
    image = np.ascontiguousarray(prepared.image, np.float16)
    share = share_of_square(prepared.oriented) if preprocessing.in_plane_size is not None else 1.0
    return PreparedCase(case.case_id, case.patient, image, labels, prepared.grid, tuple(sorted(case.annotated)), share)


def _check_case(case: TrainingCase, preprocessing: Preprocessing, contract: LabelContract) -> None:
    if case.image.modality not in (None, preprocessing.modality):
        raise BadInputError(
            "case.other-modality",
            f"The image is {case.image.modality}, the site trains on {preprocessing.modality}.",
            "Leave the case out or correct its modality.",
        )
    if not case.annotated or not set(case.annotated) <= {label.value for label in contract.labels}:
        raise BadInputError(
            "case.labels-unknown", "The case annotates no label of the federation.", "Check the site's label mapping."
        )
    strangers = set(np.unique(case.labels.array).tolist()) - {0, *case.annotated}
    if strangers:
        raise BadInputError(
            "case.labels-unexpected",
            f"The label map holds values {sorted(strangers)[:5]} that the case does not annotate.",
            "Check the site's label mapping.",
        )
