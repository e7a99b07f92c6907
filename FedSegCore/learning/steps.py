"""The optimiser steps of one round."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from FedSegCore.augmentation.ipa import consistency_loss
from FedSegCore.augmentation.pipeline import Augmentation
from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.devices import is_out_of_memory
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.fedgs import LesionSizes, UpdateAccumulator, small_lesion_tickets
from FedSegCore.learning.losses import build_loss
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.sampling import Batch, PatchSampler
from FedSegCore.learning.schedules import Moment, learning_rate
from FedSegCore.learning.task import TrainingTask
from FedSegCore.networks.registry import forward_for_training
from FedSegCore.volumes.preparation import standardise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Round:
    """What the steps of one round share.

    Attributes:
        generator: everything random but dropout.
        optimiser: fresh.
        warm_up: raises its rate over the first steps.
        received: the parameters as the round found them.
        accumulator: FedGS's sum beside the training, where it is asked for.
        statistics: of layers that keep running ones; a step that is left out must leave nothing in them.
    """

    generator: torch.Generator
    optimiser: torch.optim.Optimizer
    warm_up: torch.optim.lr_scheduler.LRScheduler
    received: list[Tensor]
    accumulator: UpdateAccumulator | None
    statistics: list[Tensor]


@dataclass(frozen=True)
class StepsOutcome:
    """What a round's steps gave.

    Attributes:
        steps: optimiser steps done.
        skipped: steps left out because loss or gradient was not finite; told in the log, and to the site's people.
        loss: mean loss of the steps done.
        extras: further tensors for the aggregation rule.
    """

    steps: int
    skipped: int
    loss: float
    extras: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)


class RoundOfSteps:
    """Trains the network it is given, one round a call.

    Args:
        task: what to train.
        cohort: prepared cases.
        network: trained in place.
        device: the network's.
    """

    def __init__(self, task: TrainingTask, cohort: Cohort, network: nn.Module, device: torch.device) -> None:
        self._task, self._network, self._device = task, network, device
        dimensions, training = task.network.dimensions, task.training
        self._sampler = PatchSampler(
            cohort.training,
            dimensions,
            training.patch_size,
            training.foreground_fraction,
            small_lesion_tickets(training, task.contract, cohort.training, dimensions),
            stratified=training.stratified,
        )
        self._augmentation = Augmentation(task.augmentation, dimensions)
        self._loss = build_loss(training.loss, training.loss_options)
        self._spacing = _typical_spacing(cohort, dimensions)
        self._batch_size = training.batch_size
        self._lesions = (
            LesionSizes.of_cohort(training.fedgs, task.contract, cohort.training, dimensions)
            if training.fedgs
            else None
        )

    @property
    def lesion_counts(self) -> tuple[int, ...]:
        """How many training images have a lesion of which size, where FedGS still has to choose what is small."""
        fedgs = self._task.training.fedgs
        return self._lesions.counts if self._lesions and fedgs and fedgs.threshold is None else ()

    def run(
        self,
        request: RoundRequest,
        generator: torch.Generator,
        progress: Progress,
        validation_losses: Sequence[float] = (),
    ) -> StepsOutcome:
        """Train one round from the network's present weights, with a fresh optimiser.

        Args:
            request: which round.
            generator: everything random comes from it; CPU.
            progress: told of every step.
            validation_losses: of the rounds before, oldest first, for schedules that go by them.

        Raises:
            CannotDoHereError: ``training.diverged``; ``device.memory``.
            CancelledError: between steps.
        """
        training = self._task.training
        count = training.steps_per_round or training.epochs * math.ceil(self._sampler.units / training.batch_size)
        this = self._begin(Moment(request.round_number, request.rounds, validation_losses), count, generator)
        losses: list[float] = []
        self._network.train()
        cards = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cards):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))  # dropout draws from it
            for number, batch in enumerate(self._sampler.batches(count, training.batch_size, generator), 1):
                progress.update((number - 1) / count, f"training step {number} of {count}")
                loss = self._step_in_memory(batch, this)
                if loss is not None:
                    losses.append(loss)
        progress.update(1.0, "trained")
        if not losses:
            raise CannotDoHereError(
                "training.diverged", "No training step had a finite loss.", "Lower the federation's learning rate."
            )
        extras = this.accumulator.result() if this.accumulator else {}
        if len(losses) < count:
            _log.warning("%d of %d training steps were left out: not finite", count - len(losses), count)
        return StepsOutcome(len(losses), count - len(losses), sum(losses) / len(losses), extras)

    def _begin(self, moment: Moment, count: int, generator: torch.Generator) -> _Round:
        training = self._task.training
        optimiser = torch.optim.AdamW(
            self._network.parameters(),
            lr=learning_rate(training, moment),
            weight_decay=training.weight_decay,
            fused=True,
        )
        received = [parameter.detach().clone() for parameter in self._network.parameters()]
        watched = UpdateAccumulator(optimiser, self._network, training.fedgs) if training.fedgs else None
        rising = max(1, min(training.warm_up_steps, count // 4))
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / rising))
        return _Round(generator, optimiser, warm_up, received, watched, _running_statistics(self._network))

    def _step_in_memory(self, batch: Batch, this: _Round) -> float | None:
        """Do a step with as large a part of the batch as memory allows; return its loss, None if it was skipped."""
        before = [statistic.clone() for statistic in this.statistics]
        while True:
            try:
                loss = self._step(batch.first(self._batch_size), this)
                if loss is None:
                    _put_back(this.statistics, before)
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._batch_size == 1:
                    raise CannotDoHereError(
                        "device.memory",
                        "There is too little memory to train on a single patch.",
                        "Use a larger graphics card, the processor, or a smaller patch size.",
                    ) from error
                self._batch_size = (self._batch_size + 1) // 2
            _log.warning("memory is short: going on with %d patches a step", self._batch_size)
            this.optimiser.zero_grad(set_to_none=True)
            _put_back(this.statistics, before)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _step(self, batch: Batch, this: _Round) -> float | None:
        this.optimiser.zero_grad(set_to_none=True)
        try:
            loss = self._forward(batch, this.generator)
        except BadInputError as error:
            if error.code != "training.not-finite":
                raise
            return None
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self._network.parameters())
        if self._task.training.proximal:
            _pull_back(parameters, this.received, self._task.training.proximal)
        norm = nn.utils.clip_grad_norm_(parameters, self._task.training.gradient_clip or math.inf)
        if not bool(torch.isfinite(norm)):
            return None
        this.optimiser.step()
        if this.accumulator and self._lesions:
            this.accumulator.add(self._lesions.eta(batch))
        this.warm_up.step()
        return float(loss.detach())

    def _forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch after augmentation."""
        images, labels = batch.images.to(self._device), batch.labels.to(self._device)
        views = self._augmentation(images, labels, generator, self._spacing)
        annotated = batch.annotated_mask(len(self._task.contract.labels)).to(self._device)
        first, own = self._logits(views.images)
        loss = self._loss(first, views.labels, annotated) + own
        if views.second_images is None or self._task.augmentation.gin is None:
            return loss
        second, own = self._logits(views.second_images)
        both = 0.5 * (loss + self._loss(second, views.labels, annotated) + own)
        return both + self._task.augmentation.gin.ipa_weight * consistency_loss(first, second)

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the network's own loss, 0 for most networks."""
        if self._task.preprocessing.standardise:
            images = standardise(images)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            logits, own = forward_for_training(self._network, images)
        return logits.float(), own.float()


def _running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the buffers of all layers that keep running statistics (BatchNorm), counters included."""
    layers = (module for module in network.modules() if getattr(module, "running_mean", None) is not None)
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


def _put_back(statistics: list[Tensor], before: list[Tensor]) -> None:
    with torch.no_grad():
        for statistic, former in zip(statistics, before, strict=True):
            statistic.copy_(former)


def _pull_back(parameters: list[nn.Parameter], received: list[Tensor], strength: float) -> None:
    """Add the gradient μ·(w - w_received) of FedProx's term μ/2·‖w - w_received‖² (Li et al., MLSys 2020)."""
    with torch.no_grad():
        for parameter, start in zip(parameters, received, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=strength)


def _typical_spacing(cohort: Cohort, dimensions: int) -> tuple[float, ...] | None:
    """Return the median spacing of the training cases, mm along (i, j[, k])."""
    if not cohort.training:
        return None
    return tuple(median(case.grid.spacing[axis] for case in cohort.training) for axis in range(dimensions))
