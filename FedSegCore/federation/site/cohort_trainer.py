"""The site's trainer behind the socket: the cohort is read and prepared once and kept between rounds."""

import logging

from FedSegCore.common.files import sha256_of
from FedSegCore.common.progress import Progress
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.site.cohort_file import load_cohort, read_cohort_file
from FedSegCore.federation.site.control import wanted_device
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import CohortRead
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.inference.devices import choose_device
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.cohort_usual import Measured, measure_cohort
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.learning.validation_memory import ValidationMemory
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing

_PREPARING = 0.1

_log = logging.getLogger(__name__)


class CohortTrainer:
    """Trains rounds on the cohort of one site.

    Args:
        folder: the site; its device must be usable, else CannotDoHereError.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._site = folder.settings().name
        self._device = choose_device(wanted_device(folder))
        self._cohort: tuple[tuple[Preprocessing, LabelContract, str], Cohort] | None = None
        self._trainer: LocalTrainer | None = None
        self._memory = ValidationMemory(private_folder(folder.training) / "validation.json")

    @property
    def set_aside(self) -> int:
        """Number of cases that could not be used when the cohort was last read."""
        return 0 if self._cohort is None else len(self._cohort[1].set_aside)

    def describe(self) -> SiteDescription:
        """Return what the site tells of its cohort; raises BadInputError for an unusable cohort file."""
        cohort = read_cohort_file(self._folder.cohort)
        return SiteDescription(cohort.modality, cohort.count("train"), cohort.count("validation"))

    def train_round(
        self, task: TrainingTask, weights: Arrays, request: RoundRequest, progress: Progress
    ) -> RoundResult:
        """Train one round; the images are read again only when the cohort file or the way of preparing them changes."""
        trainer = self._trainer_for(task, progress.part(0.0, _PREPARING))
        return trainer.train_round(weights, request, progress.part(_PREPARING, 1.0))

    def cohort_for(self, task: TrainingTask) -> Cohort:
        """Return the cohort that ``task`` was last trained with, also if cases have come or gone since then."""
        if self._trainer is not None and self._trainer.task == task:
            return self._trainer.cohort
        return self._cohort_for(task, Progress())

    def measured(self, task: TrainingTask) -> Measured:
        """Return the training patients' measures; see ``LocalTrainer.measured``."""
        if self._trainer is not None and self._trainer.task == task:
            return self._trainer.measured
        return measure_cohort(self._cohort_for(task, Progress()).training)

    def _trainer_for(self, task: TrainingTask, progress: Progress) -> LocalTrainer:
        cohort = self._cohort_for(task, progress)
        if self._trainer is None or self._trainer.task != task or self._trainer.cohort is not cohort:
            self._trainer = LocalTrainer(task, cohort, site=self._site, device=self._device, memory=self._memory)
        return self._trainer

    def _cohort_for(self, task: TrainingTask, progress: Progress) -> Cohort:
        file = self._folder.cohort
        key = (task.preprocessing, task.contract, sha256_of(file) if file.exists() else "")
        if self._cohort is None or self._cohort[0] != key:
            cohort = load_cohort(file, task.preprocessing, task.contract, progress)
            self._folder.journal.append(
                CohortRead(
                    modality=task.preprocessing.modality,
                    training_cases=len(cohort.training),
                    validation_cases=len(cohort.validation),
                    set_aside=len(cohort.set_aside),
                    cohort_sha256=key[2],
                )
            )
            for aside in cohort.set_aside:
                _log.warning(
                    "case %s is not used [%s]: %s", aside.case_id, aside.code, aside.reason, extra={"code": aside.code}
                )
            if not cohort.training:
                # not kept: once the images can be read, the next round uses them
                return cohort
            self._cohort = (key, cohort)
        return self._cohort[1]
