"""The site's trainer behind the socket: the cohort is read and prepared once and kept between rounds."""

from FedSegCore.common.progress import Progress
from FedSegCore.federation.site.cohort_file import load_cohort, read_cohort_file
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.inference.devices import choose_device
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.learning.trainer import LocalTrainer

_PREPARING = 0.1


class CohortTrainer:
    """Trains rounds on the cohort of one site.

    Args:
        folder: the site; its device must be usable, else CannotDoHereError.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._site = folder.settings().name
        self._device = choose_device(folder.settings().device)
        self._cohort: tuple[str, Cohort] | None = None
        self._trainer: tuple[str, LocalTrainer] | None = None

    def describe(self) -> SiteDescription:
        """Return what the site tells of its cohort; raises BadInputError for an unusable cohort file."""
        cohort = read_cohort_file(self._folder.cohort)
        return SiteDescription(cohort.modality, cohort.count("train"), cohort.count("validation"))

    def train_round(
        self, task: TrainingTask, weights: Arrays, request: RoundRequest, progress: Progress
    ) -> RoundResult:
        """Train one round; what the cohort file says is read again only when the task changes how images are read."""
        trainer = self._trainer_for(task, progress.part(0.0, _PREPARING))
        return trainer.train_round(weights, request, progress.part(_PREPARING, 1.0))

    def _trainer_for(self, task: TrainingTask, progress: Progress) -> LocalTrainer:
        key = task.model_dump_json()
        if self._trainer is None or self._trainer[0] != key:
            cohort = self._cohort_for(task, progress)
            self._trainer = (key, LocalTrainer(task, cohort, site=self._site, device=self._device))
        return self._trainer[1]

    def _cohort_for(self, task: TrainingTask, progress: Progress) -> Cohort:
        key = task.preprocessing.model_dump_json() + task.contract.model_dump_json()
        if self._cohort is None or self._cohort[0] != key:
            self._cohort = (key, load_cohort(self._folder.cohort, task.preprocessing, task.contract, progress))
        return self._cohort[1]
