"""A site's trainer: keeps one network and the prepared cohort in memory, and trains one round at a time."""

import functools
import hashlib
import json
import time
import zlib
from collections.abc import Sequence
from statistics import fmean

import torch

from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.predictor import make_predictor
from FedSegCore.inference.single_pieces import keep_single_pieces
from FedSegCore.inference.weights import load_weights, weights_of
from FedSegCore.learning.cohort import Cohort, PreparedCase
from FedSegCore.learning.cohort_usual import Measured, measure_cohort, usual_of
from FedSegCore.learning.metrics import case_scores
from FedSegCore.learning.results import Arrays, CaseScore, RoundRequest, RoundResult
from FedSegCore.learning.steps import RoundOfSteps
from FedSegCore.learning.task import TrainingTask
from FedSegCore.learning.validation_memory import ValidationMemory
from FedSegCore.networks.layout import lay_out
from FedSegCore.networks.registry import build_network

SCORING_SHARE = 0.25
"""Share of a round's progress bar that scoring takes."""


class LocalTrainer:
    """Trains a site's network round by round.

    The result depends on the weights, the request, the cohort, the site's name and the task only: everything random
    comes from generators derived from them, and torch's global generator is left as it was. On the processor, the
    same number of threads gives the same result to the bit. Only under a schedule that goes by validation
    (``"fedgin_plateau"``) the scores of the rounds before count too, which ``memory`` holds.

    Args:
        task: what to train.
        cohort: the prepared cases.
        site: the site's name; sites draw differently.
        device: where to compute; the processor if None.
        memory: of the validation losses; one that ends with this trainer if None.

    Raises:
        BadInputError: ``training.task``: network, labels, preprocessing and patch size do not belong together;
            ``network.*``, ``loss.unknown``.
    """

    def __init__(
        self,
        task: TrainingTask,
        cohort: Cohort,
        *,
        site: str,
        device: torch.device | None = None,
        memory: ValidationMemory | None = None,
    ) -> None:
        _check_task(task, cohort)
        self.task = task
        self.cohort = cohort
        self.device = device or torch.device("cpu")
        self._site_number = zlib.crc32(site.encode())
        with torch.random.fork_rng(devices=[]):
            self._network = build_network(task.network).to(self.device)
        lay_out(self._network, task.network.dimensions)
        self._steps = RoundOfSteps(task, cohort, self._network, self.device)
        self._memory = memory or ValidationMemory()

    def train_round(self, weights: Arrays, request: RoundRequest, progress: Progress | None = None) -> RoundResult:
        """Score the received model, train it one round, and return the result; ``weights`` is not changed.

        Raises:
            BadInputError: ``weights.*``; ``cohort.empty``.
            CannotDoHereError: ``training.diverged`` where no step had a finite loss; ``device.memory``.
            CancelledError: within one step or tile.
        """
        told = progress or Progress()
        if not self.cohort.training:
            raise BadInputError(
                "cohort.empty", "The site has no usable training case.", "Add cases, or look why they were set aside."
            )
        started = time.perf_counter()
        scored = self.task.training.validate_received and bool(self.cohort.validation)
        cut = SCORING_SHARE if scored else 0.0
        own = {value for case in self.cohort.training for value in case.annotated}
        # as the release would: labels that nobody annotates are never given
        values = tuple(sorted({*request.trained_values, *own}))
        scores = self.score(weights, self.cohort.validation, told.part(0.0, cut), values) if scored else ()
        between = time.perf_counter()
        load_weights(self._network, weights)
        generator = sample_generator(request.seed, self._site_number, request.round_number)
        outcome = self._steps.run(request, generator, told.part(cut, 1.0), self._remember(request, scores))
        trained = weights_of(self._network)
        # Counters are not averaged (METHODS §5): every site answers with those it was sent.
        trained.update({name: array.copy() for name, array in weights.items() if array.dtype.kind != "f"})
        return RoundResult(
            weights=trained,
            num_examples=self.cohort.num_examples(self.task.network.dimensions),
            num_steps=outcome.steps,
            skipped_steps=outcome.skipped,
            loss=outcome.loss,
            scores=scores,
            extras=outcome.extras,
            seconds={"scoring": between - started, "training": time.perf_counter() - between},
            lesion_counts=self._steps.lesion_counts,
            usual=usual_of(self.measured) if request.usual else None,
            annotated=tuple(sorted(own)),
        )

    @functools.cached_property
    def measured(self) -> Measured:
        """The training patients' measures, from which what is usual is told."""
        return measure_cohort(self.cohort.training)

    def _remember(self, request: RoundRequest, scores: Sequence[CaseScore]) -> list[float]:
        """Return 1 - mean Dice of the models received up to this round, oldest first."""
        loss = 1.0 - fmean(score.dice for score in scores) if scores else None
        return self._memory.remember(_training_key(self.task, request.seed), request.round_number, loss)

    def score(
        self,
        weights: Arrays,
        cases: Sequence[PreparedCase],
        progress: Progress | None = None,
        values: Sequence[int] | None = None,
    ) -> tuple[CaseScore, ...]:
        """Return the scores of ``weights`` on ``cases``, per case and annotated label, on the prepared grid.

        ``values`` are the contract values that may be found; None: all.

        Raises:
            BadInputError: ``weights.*``.
            CancelledError: within one tile.
        """
        told = progress or Progress()
        load_weights(self._network, weights)
        task = self.task
        predictor = make_predictor(
            self._network,
            task.network,
            task.training.patch_size,
            self.device,
            standardise=task.preprocessing.standardise,
            values=values,
        )
        scores: list[CaseScore] = []
        try:
            for number, case in enumerate(cases):
                part = told.part(number / len(cases), (number + 1) / len(cases))
                predicted = predictor.labels(case.image, part)
                keep_single_pieces(predicted, task.contract)
                scores += case_scores(predicted, case.labels, case.grid, task.contract, case.annotated, case.case_id)
        finally:
            self._network.to(self.device)  # short of memory, the predictor may have left it on the processor
        return tuple(scores)


def _training_key(task: TrainingTask, seed: int) -> str:
    """Return what stays the same from a training's first round to its last, as a hash."""
    parts = (task.network, task.contract, task.preprocessing)
    return hashlib.sha256(json.dumps([seed, *(part.model_dump_json() for part in parts)]).encode()).hexdigest()


def _check_task(task: TrainingTask, cohort: Cohort) -> None:
    problems = []
    if task.network.out_channels != len(task.contract.labels) + 1:
        problems.append("the network needs one output channel for the background and one for each label")
    if task.network.in_channels != task.preprocessing.channels:
        problems.append("the network's input channels are not those of the prepared image")
    if task.network.dimensions == 2 and task.training.patch_size[0] != 1:
        problems.append("a 2-D network needs a patch size (1, j, i)")
    if any(case.image.shape[0] != task.network.in_channels for case in (*cohort.training, *cohort.validation)):
        problems.append("the cohort was prepared with other channels")
    if problems:
        raise BadInputError(
            "training.task", f"The training task does not fit together: {'; '.join(problems)}.", "Correct the task."
        )
