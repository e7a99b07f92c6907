"""FedGS (DeCaF 2024; METHODS §4), server side: sites send the update in which steps on small lesions weigh more."""

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.folding import FloatSums, FoldingRule, WeightedSum, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteUpdate
from FedSegCore.learning.results import FEDGS_PREFIX

_MOMENTUM = "momentum/"
_STATISTICS = (".running_mean", ".running_var")


def trained_names(model: Arrays) -> frozenset[str]:
    """Return the names of the tensors that training moves, which C_k covers: floats other than running statistics."""
    return frozenset(
        name for name, array in model.items() if is_averaged(array) and not f".{name}".endswith(_STATISTICS)
    )


def accumulated_update(update: SiteUpdate, model: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """Return C_k by tensor name; raises ValueError where it is not of all trained tensors of ``model`` and no other."""
    found = {
        name.removeprefix(FEDGS_PREFIX): array for name, array in update.extras.items() if name.startswith(FEDGS_PREFIX)
    }
    if not found:
        raise ValueError("the site sent no accumulated update")
    # by the model, not by another site's answer: who comes first would decide which of the others are refused
    if found.keys() != trained_names(model):
        raise ValueError("the accumulated update is not one of all trained tensors")
    for name, array in found.items():
        if array.shape != model[name].shape:
            raise ValueError(f"the accumulated update of {name!r} fits no trained tensor")
    return found


def scaled_weights(update: SiteUpdate, model: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """Return the model the site received, moved by −C_k; tensors that are not trained are as the site sent them."""
    received = update.received or model
    changes = accumulated_update(update, model)
    return {
        name: (received[name].astype(np.float64) - changes[name].astype(np.float64)).astype(array.dtype)
        if name in changes
        else array
        for name, array in update.weights.items()
    }


class FedGs(FoldingRule):
    """w ← w − v, v ← μ·v + Σ_k (s_k/Σs)·C_k over sites with n_k > 0.

    Float tensors that are not trained (running statistics) are the step-weighted mean of what the sites sent.

    Args:
        momentum: server momentum μ in [0, 1); v is kept in the rule's state as ``"momentum/<tensor>"``, float64.
    """

    def __init__(self, momentum: float = 0.0) -> None:
        self._momentum = momentum

    def _start(self) -> None:
        self._updates = WeightedSum()
        self._others = WeightedSum()

    def _take(self, update: SiteUpdate) -> None:
        changes = accumulated_update(update, self.model)
        if update.num_examples > 0 and update.num_steps > 0:
            self._updates.add(changes, update.num_steps)
            rest = {name: array for name, array in update.weights.items() if name not in changes}
            self._others.add(rest, update.num_steps)

    def _close(self) -> Aggregate:
        if self._updates.total == 0.0:
            return Aggregate(self.model, rule_state=self.state)
        velocity: FloatSums = {}
        for name, total in self._updates.sums.items():
            before = self.state.get(_MOMENTUM + name)
            velocity[name] = total
            velocity[name] /= self._updates.total
            if before is not None:
                velocity[name] += self._momentum * before.astype(np.float64)
        moved = {
            name: (self.model[name].astype(np.float64) - step).astype(self.model[name].dtype)
            for name, step in velocity.items()
        }
        state = {_MOMENTUM + name: step for name, step in velocity.items()} if self._momentum > 0.0 else {}
        return Aggregate(self._whole({**self._others.mean(self.model), **moved}), rule_state=state)
