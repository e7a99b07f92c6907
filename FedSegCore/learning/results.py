"""What a round asks of a site's trainer, and what the trainer answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.volumes.usual import CohortUsual

Arrays = Mapping[str, npt.NDArray[np.generic]]

FEDGS_PREFIX = "fedgs/"
"""Extras ``"fedgs/<tensor>"`` hold FedGS's accumulated update C_k, the sum of η_t·d_t over the round's steps."""


@dataclass(frozen=True)
class CaseScore:
    """One case's score for one label, over the whole volume (3-D, per patient).

    Attributes:
        case: the case id inside its site (never a patient's name).
        label: label name.
        dice: 2|A∩B| / (|A|+|B|); 1 where both are empty.
        iou: |A∩B| / |A∪B|; 1 where both are empty.
        surface_distance_mm: average symmetric surface distance; None where either is empty.
    """

    case: str
    label: str
    dice: float
    iou: float
    surface_distance_mm: float | None = None


@dataclass(frozen=True)
class RoundRequest:
    """A round, as the site's trainer sees it after the incoming checks.

    Attributes:
        round_number: 1-based.
        rounds: rounds planned in all.
        seed: the federation's seed; the trainer derives its own from it, its site id and the round.
        privacy: what the federation demands of the answer; the site's own policy counts where it is stricter.
        exchange: in which form the answer travels.
        usual: tell what is usual in the training cohort, too.
        trained_values: contract values that sites of the group have annotated so far; what they score gives these only.
    """

    round_number: int
    rounds: int
    seed: int
    privacy: PrivacyRules = field(default_factory=PrivacyRules)
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    usual: bool = False
    trained_values: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoundResult:
    """What training a round gave.

    Attributes:
        weights: the model after training, state-dict names.
        num_examples: training examples n_k (2-D: images; 3-D: cases).
        num_steps: optimiser steps done.
        skipped_steps: steps left out since loss or gradient was not finite; for the site's own people, it does not
            travel.
        loss: mean training loss of the round; None where the site does not tell it.
        scores: the *received* model's scores on the site's validation cases, before training.
        extras: further tensors the aggregation rule asks for.
        seconds: wall time of training and of scoring.
        annotated: contract values that at least one training case annotates, ascending.
        lesion_counts: how many training images have a lesion of which size (``lesion_sizes.size_counts``); empty where
            FedGS does not ask for it.
        usual: what is usual in the training cohort; None where it was not asked for.
        encoded: ``weights`` and ``extras`` are in the form in which they travel (``federation.compression``).
        unchanged: tensors that do not travel, since they are as they were received.
    """

    weights: Arrays
    num_examples: int
    num_steps: int
    loss: float | None
    scores: tuple[CaseScore, ...] = ()
    extras: Arrays = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    annotated: tuple[int, ...] = ()
    lesion_counts: tuple[int, ...] = ()
    usual: CohortUsual | None = None
    encoded: bool = False
    unchanged: tuple[str, ...] = ()
    skipped_steps: int = 0
