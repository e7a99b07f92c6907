"""Learning rates over the rounds, by name.

A schedule is a pure function of the round and of what validation gave so far, because a site makes a fresh optimiser
every round, may miss rounds, and may restart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.config import TrainingConfig


@dataclass(frozen=True)
class Moment:
    """When a learning rate is asked for.

    Attributes:
        round_number: 1-based.
        rounds: rounds planned in all.
        validation_losses: the site's validation loss of the rounds before, oldest first; 1 - mean Dice will do.
    """

    round_number: int
    rounds: int
    validation_losses: Sequence[float] = ()


@dataclass(frozen=True)
class PlateauSettings:
    """Settings of torch's ``ReduceLROnPlateau``, stepped once a round.

    Attributes:
        factor: what the rate is multiplied by.
        patience: rounds without improvement that are borne before that.
        smallest: the rate never falls below this.
    """

    factor: float
    patience: int
    smallest: float


FEDGIN_PLATEAU = PlateauSettings(factor=0.5, patience=3, smallest=1e-5)
"""FedGIN starts from 5e-4 (METHODS §2). FedGS trains at a constant 1e-4 (METHODS §4)."""


def cosine(first: float, last: float, moment: Moment) -> float:
    """Return ``first`` in round 1, ``last`` in the last round and after, half a cosine between."""
    done = min(1.0, (moment.round_number - 1) / max(1, moment.rounds - 1))
    return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * done))


def plateau(first: float, settings: PlateauSettings, losses: Sequence[float]) -> float:
    """Return where ``ReduceLROnPlateau`` stands after ``losses``, starting from ``first``."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=first)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=settings.factor, patience=settings.patience, min_lr=settings.smallest
    )
    for loss in losses:
        scheduler.step(loss)
    return float(optimiser.param_groups[0]["lr"])


_SCHEDULES: Mapping[str, Callable[[TrainingConfig, Moment], float]] = {
    "cosine": lambda training, moment: cosine(training.learning_rate, training.final_learning_rate, moment),
    "constant": lambda training, _moment: training.learning_rate,
    "fedgin_plateau": lambda training, moment: plateau(
        training.learning_rate, FEDGIN_PLATEAU, moment.validation_losses
    ),
}


def schedule_names() -> tuple[str, ...]:
    """Return the names that ``TrainingConfig.schedule`` may have."""
    return tuple(_SCHEDULES)


def learning_rate(training: TrainingConfig, moment: Moment) -> float:
    """Return the step size of a round.

    Raises:
        BadInputError: ``schedule.unknown``.
    """
    schedule = _SCHEDULES.get(training.schedule)
    if schedule is None:
        raise BadInputError(
            "schedule.unknown",
            f"There is no learning-rate schedule called {training.schedule!r}.",
            f"Choose one of {', '.join(_SCHEDULES)}.",
        )
    return schedule(training, moment)
