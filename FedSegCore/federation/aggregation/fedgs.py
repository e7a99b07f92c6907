"""FedGS (DeCaF 2024; METHODS §4), server side: sites send the update in which steps on small lesions weigh more."""

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.folding import FloatSums, FoldingRule, WeightedSum, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteUpdate
from FedSegCore.learning.results import FEDGS_PREFIX

_MOMENTUM = "momentum/"


def accumulated_update(update: SiteUpdate, model: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """Return C_k by tensor name; raises ValueError where there is none or it does not fit ``model``."""
    found = {
        name.removeprefix(FEDGS_PREFIX): array for name, array in update.extras.items() if name.startswith(FEDGS_PREFIX)
    }
    if not found:
        raise ValueError("the site sent no accumulated update")
    for name, array in found.items():
        if name not in model or not is_averaged(model[name]) or array.shape != model[name].shape:
            raise ValueError(f"the accumulated update of {name!r} fits no trainable tensor")
    return found


def scaled_weights(update: SiteUpdate, model: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """Return the model the site received, moved by −C_k; tensors without C_k are as the site sent them."""
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
        self._trained: frozenset[str] | None = None

    def _take(self, update: SiteUpdate) -> None:
        changes = accumulated_update(update, self.model)
        if self._trained is not None and self._trained != changes.keys():
            raise ValueError("the site's accumulated update covers other tensors than the other sites'")
        self._trained = frozenset(changes)
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
