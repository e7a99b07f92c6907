"""A federation in one process: the real server loop and client apps over a ``LocalGrid``; for experiments."""

from collections.abc import Mapping
from pathlib import Path

import torch

from FedSegCore.common.progress import Progress
from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.events import EventCallback
from FedSegCore.federation.groups import Participation, always
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.remainder import ExchangingTrainer
from FedSegCore.federation.rounds import FederationLoop, ModelMaker
from FedSegCore.federation.trainer_port import SiteDescription, TrainerPort
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.learning.validation_memory import ValidationMemory


class InProcessTrainer:
    """A site in this process: a cohort behind the ``TrainerPort``; keeps its trainer from round to round.

    Args:
        site: the site's name; sites draw differently.
        modality: DICOM modality code of the cohort.
        cohort: prepared cases.
        device: where to train; the processor if None.
        progress: told of training, and cancels it.
        memory: of its validation losses; one that ends with this object if None.
    """

    def __init__(
        self,
        site: str,
        modality: str,
        cohort: Cohort,
        device: torch.device | None = None,
        progress: Progress | None = None,
        memory: ValidationMemory | None = None,
    ) -> None:
        self._memory = memory or ValidationMemory()
        self._site = site
        self._modality = modality
        self._cohort = cohort
        self._device = device
        self._progress = progress
        self._trainer: LocalTrainer | None = None

    def describe(self) -> SiteDescription:
        """See ``TrainerPort.describe``."""
        return SiteDescription(self._modality, len(self._cohort.training), len(self._cohort.validation))

    def train_round(self, task: TrainingTask, weights: Arrays, request: RoundRequest) -> RoundResult:
        """See ``TrainerPort.train_round``."""
        if self._trainer is None or self._trainer.task != task:
            self._trainer = LocalTrainer(task, self._cohort, site=self._site, device=self._device, memory=self._memory)
        return self._trainer.train_round(weights, request, self._progress)


class StandingClock:
    """A clock that moves only when somebody sleeps: work in this process never runs into a deadline."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Return the reading in seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self._now += seconds


def run_in_process(
    config: FederationConfig,
    sites: Mapping[str, TrainerPort | tuple[str, Cohort]],
    folder: Path,
    progress: Progress | None = None,
    *,
    participation: Participation = always,
    on_event: EventCallback | None = None,
    device: torch.device | None = None,
    make_model: ModelMaker = initial_model,
) -> FederationOutcome:
    """Run a federation to its end in this process; in a folder with a former run, go on with its next round.

    Sites train one after another, each when its answer is due; deadlines do not pass meanwhile. With the same
    configuration, sites and threads the outcome is the same to the bit, also across interruptions.

    Args:
        config: the federation.
        sites: site name → its trainer, or modality and prepared cohort.
        folder: the run's folder, laid out as a real coordinator's.
        progress: told the share of rounds done; cancels within a training step.
        participation: (site, round) → whether the site is asked; for drop-out experiments.
        on_event: told of every event.
        device: where cohorts train; the processor if None.
        make_model: makes each group's first model.

    Raises:
        BadInputError: the configuration does not fit; ``federation.config-changed``.
        CancelledError: cancelled; call again with the same folder to go on.
    """
    told = progress or Progress()
    clock = StandingClock()
    nodes = {name: LocalNode(make_client_app(_port(name, site, device, told, folder))) for name, site in sites.items()}
    grid = LocalGrid(nodes, clock, folder=folder / "messages")
    try:
        FederationLoop(
            grid,
            config,
            folder,
            on_event=on_event,
            progress=told,
            participation=participation,
            make_model=make_model,
            clock=clock,
            sleep=clock.sleep,
        ).run()
    finally:
        grid.close()
    return FederationOutcome.load(folder)


def _port(
    name: str, site: TrainerPort | tuple[str, Cohort], device: torch.device | None, progress: Progress, folder: Path
) -> TrainerPort:
    if isinstance(site, tuple):
        modality, cohort = site
        memory = ValidationMemory(folder / "validation" / f"{name}.json")
        site = InProcessTrainer(name, modality, cohort, device, progress.quiet(), memory)
    return ExchangingTrainer(site, folder / "remainders" / name)
