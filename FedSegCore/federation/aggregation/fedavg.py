"""FedAvg (McMahan et al., AISTATS 2017): the weighted mean of the sites' models."""

from typing import Literal

from FedSegCore.federation.aggregation.folding import FoldingRule, WeightedSum
from FedSegCore.federation.aggregation.rule import Aggregate, SiteUpdate


class FedAvg(FoldingRule):
    """w ← Σ v_k·w_k / Σ v_k.

    Args:
        weighting: v_k is the site's ``"examples"`` n_k, its ``"steps"`` s_k, or 1 (``"equal"``); 0 where n_k = 0.
    """

    def __init__(self, weighting: Literal["examples", "steps", "equal"] = "examples") -> None:
        self._weighting = weighting

    def _start(self) -> None:
        self._sum = WeightedSum()

    def _take(self, update: SiteUpdate) -> None:
        weight = {"examples": update.num_examples, "steps": update.num_steps, "equal": 1}[self._weighting]
        if update.num_examples > 0 and weight > 0:
            self._sum.add(update.weights, weight)

    def _close(self) -> Aggregate:
        if self._sum.total == 0.0:
            return Aggregate(self.model, rule_state=self.state)
        return Aggregate(self._whole(self._sum.mean(self.model)), rule_state=self.state)
