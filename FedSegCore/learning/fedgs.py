"""FedGS at the site (DeCaF 2024; METHODS §4): steps on small lesions weigh more in the update that is sent.

The local weights train exactly as without FedGS; only a sum is kept beside them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.cohort import PreparedCase
from FedSegCore.learning.config import FedGsConfig, TrainingConfig
from FedSegCore.learning.lesion_sizes import SMALL_SHARE, SMALLEST_THRESHOLD, size_counts
from FedSegCore.learning.results import FEDGS_PREFIX
from FedSegCore.learning.sampling import Batch, Tickets
from FedSegCore.volumes.labels import LabelContract


@dataclass(frozen=True)
class SizeWeights:
    """The two numbers of δ = tanh((log_l(A/a))²) for A/a >= τ, else 0.

    Attributes:
        log_base: l, above 1.
        threshold: τ, above 1.
    """

    log_base: float
    threshold: float

    def delta(self, relative_areas: torch.Tensor) -> torch.Tensor:
        """Return δ in [0, 1] of images whose lesion takes ``relative_areas`` a/A; 0 where there is no lesion."""
        inverse = 1.0 / relative_areas.double()
        small = (relative_areas > 0) & (inverse >= self.threshold)
        return torch.where(small, torch.tanh((inverse.log() / math.log(self.log_base)) ** 2), 0.0)

    def eta(self, relative_areas: torch.Tensor) -> float:
        """Return the batch's factor η = 1 + (2/B) Σ δ in [1, 3].

        Args:
            relative_areas: a/A of the B images of a batch, those without a lesion included as 0.
        """
        return 1.0 + 2.0 * float(self.delta(relative_areas).mean())


def size_weights(config: FedGsConfig, known: Iterable[float]) -> SizeWeights:
    """Return l and τ as configured, or chosen from a site's own lesion sizes where they are None.

    A federation knows no sizes before its sites have answered once; from then on it sends what it chose from all of
    theirs (``lesion_sizes.with_pooled_sizes``).

    The chosen τ is the A/a that the smallest third of the lesions reaches, at least ``SMALLEST_THRESHOLD``. l is τ,
    so that δ starts at tanh(1) = 0.76 for a lesion just small enough and rises to 1: the papers' pairs (100, 150) and
    (1000, 1000) start at 0.83 and 0.76. Without any lesion both are ``SMALLEST_THRESHOLD``.

    Args:
        config: the federation's choice.
        known: a/A of the training images, above 0 where there is a lesion; 0 is left out.
    """
    inverse = [1.0 / share for share in known if share > 0.0]
    chosen = float(np.quantile(inverse, 1.0 - SMALL_SHARE)) if inverse else SMALLEST_THRESHOLD
    threshold = config.threshold or max(chosen, SMALLEST_THRESHOLD)
    return SizeWeights(log_base=config.log_base or threshold, threshold=threshold)


@dataclass(frozen=True)
class LesionSizes:
    """What counts as lesion at a site, and how its size weighs.

    Attributes:
        values: the contract values that make up the lesion.
        weights: l and τ.
        shares: a/A of every unit (a slice in 2-D, a case in 3-D; in the order of the cases), float64: a is the whole
            lesion and A the whole image without padding, whatever a patch shows of them.
        counts: how many units have a lesion of which size, see ``lesion_sizes.size_counts``.
    """

    values: tuple[int, ...]
    weights: SizeWeights
    shares: npt.NDArray[np.float64]
    counts: tuple[int, ...] = ()

    @classmethod
    def of_cohort(
        cls, config: FedGsConfig, contract: LabelContract, cases: Sequence[PreparedCase], dimensions: int
    ) -> "LesionSizes":
        """Return what ``config`` asks for at a site with these training cases.

        Args:
            config: the federation's choice.
            contract: the labels.
            cases: the site's training cases.
            dimensions: 2 measures every slice, 3 every case.

        Raises:
            BadInputError: ``fedgs.label-unknown``: the contract has no label of a configured name.
        """
        check_lesion_labels(config.labels, contract)
        values = tuple(contract.value_of(name) for name in config.labels or contract.names)
        axes = (1, 2) if dimensions == 2 else None
        found = [np.atleast_1d(np.isin(case.labels, values).mean(axis=axes)) / case.image_share for case in cases]
        shares = np.concatenate(found) if found else np.zeros(0)
        return cls(values, size_weights(config, shares.tolist()), shares, size_counts(shares.tolist()))

    def eta(self, batch: Batch) -> float:
        """Return a batch's factor. A patch counts with its unit's whole lesion, and 0 where it shows none of it."""
        lesion = torch.isin(batch.labels, torch.tensor(self.values, dtype=batch.labels.dtype))
        shown = lesion.flatten(1).any(dim=1)
        return self.weights.eta(torch.where(shown, torch.from_numpy(self.shares[list(batch.units)]), 0.0))


def check_lesion_labels(labels: Sequence[str], contract: LabelContract) -> None:
    """Check that the contract has the labels that make up the lesion; raises BadInputError ``fedgs.label-unknown``."""
    unknown = sorted(set(labels) - set(contract.names))
    if unknown:
        raise BadInputError(
            "fedgs.label-unknown",
            f"FedGS should weigh {', '.join(map(repr, unknown))}, which the label contract does not have.",
            f"Choose from {', '.join(contract.names)}.",
        )


def small_lesion_tickets(
    training: TrainingConfig, contract: LabelContract, cases: Sequence[PreparedCase], dimensions: int
) -> Tickets | None:
    """Return how often a slice or case is drawn for once of any other; None where all are alike.

    Raises:
        BadInputError: ``fedgs.label-unknown``, as ``LesionSizes.of_cohort``.
    """
    wanted = training.oversampling
    if wanted is None:
        return None
    like = FedGsConfig(labels=wanted.labels, threshold=wanted.threshold)
    sizes = LesionSizes.of_cohort(like, contract, cases, dimensions)

    def times(case: PreparedCase, labels: npt.NDArray[np.uint8]) -> int:
        share = np.isin(labels, sizes.values).mean() / case.image_share
        return wanted.times if share > 0.0 and 1.0 / share >= sizes.weights.threshold else 1

    return times


class UpdateAccumulator:
    """Sums what AdamW's steps change, each times its η: C = Σ η_t d_t, d_t = lr · m̂ / (√v̂ + ε).

    d_t is read from the optimiser's own moments after each step, so weight decay never enters and the optimiser is
    left alone: training goes on bit for bit as without it, with any of AdamW's implementations.

    Args:
        optimiser: a fresh AdamW; neither ``amsgrad`` nor ``maximize``.
        network: whose parameters it trains.
        config: normalise and constant_eta.

    Raises:
        ValueError: the optimiser is of another kind.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, network: torch.nn.Module, config: FedGsConfig) -> None:
        groups = optimiser.param_groups
        if not isinstance(optimiser, torch.optim.AdamW) or any(g["amsgrad"] or g["maximize"] for g in groups):
            raise ValueError("FedGS needs plain AdamW")
        self._optimiser = optimiser
        self._config = config
        self._names = {parameter: name for name, parameter in network.named_parameters() if parameter.requires_grad}
        self._sums = {
            name: torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
            for parameter, name in self._names.items()
        }
        self._etas: list[float] = []

    @property
    def etas(self) -> tuple[float, ...]:
        """η of every step so far."""
        return tuple(self._etas)

    @torch.no_grad()
    def add(self, eta: float) -> None:
        """Take in the step just done; call between ``optimiser.step()`` and ``zero_grad()``.

        Args:
            eta: the batch's factor, see ``SizeWeights.eta``.
        """
        self._etas.append(eta)
        factor = 1.0 if self._config.constant_eta else eta
        for group in self._optimiser.param_groups:
            for parameter in group["params"]:
                # AdamW leaves a parameter without a gradient where it is.
                if parameter.grad is not None and parameter in self._names:
                    step = _displacement(self._optimiser.state[parameter], group)
                    self._sums[self._names[parameter]].add_(step, alpha=factor)

    def result(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return C by ``"fedgs/<tensor name>"``, float32, zeros for parameters that never moved.

        ``constant_eta`` gives every step the round's mean η instead of its own; ``normalise`` divides C by that mean.
        """
        mean = float(np.mean(self._etas)) if self._etas else 1.0
        factor = (mean if self._config.constant_eta else 1.0) / (mean if self._config.normalise else 1.0)
        return {FEDGS_PREFIX + name: (factor * total).cpu().contiguous().numpy() for name, total in self._sums.items()}


def _displacement(state: dict[str, torch.Tensor], group: Mapping[str, Any]) -> torch.Tensor:
    """Return lr · m̂ / (√v̂ + ε) of the step that led to ``state``."""
    first, second = group["betas"]
    steps = state["step"]
    # 1 - β^t by expm1: 1 - 0.999 alone loses half of float32's digits.
    first_bias = -torch.expm1(steps * math.log(first)) if first else torch.ones_like(steps)
    second_bias = -torch.expm1(steps * math.log(second)) if second else torch.ones_like(steps)
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    device = mean.device
    denominator = (square / second_bias.to(device)).sqrt_().add_(group["eps"])
    return group["lr"] * (mean / first_bias.to(device)) / denominator
