"""FLAMES (Expert Systems 2025; METHODS §3): each site its own mix with the others, the server the mean."""

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.fedgs import scaled_weights
from FedSegCore.federation.aggregation.folding import FoldingRule, WeightedSum, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, SiteUpdate


class Flames(FoldingRule):
    """ŵ_k = α·w_k + (1−α)·Σ_{j≠k} β_kj·w_j with β_kj = v_j / Σ_{i≠k} v_i; group model W = (1/N)·Σ w_k.

    N counts the sites with n_k > 0. A lone site gets its own model back. A site with n_k = 0 weighs nothing in any
    mix or in W; its own mix is the same formula. Only T = Σ v_j·w_j and Σ w_k are kept in memory (float64); each
    site's own model lies in the store, and ŵ_k = α·w_k + (1−α)·(T − v_k·w_k)/(Σv − v_k) is computed when asked.
    Tensors that are not floats are the site's own.

    Args:
        alpha: α for every N; None takes min(1, ``alpha_offset`` + 1/N).
        alpha_offset: the paper's 0.1.
        sizes: v_j is 1/n_j (``"inverse"``, the paper), 1 (``"equal"``) or n_j (``"direct"``).
        update: what stands for w_k: the ``"weights"`` sent, or, with ``"fedgs"``, the received model moved by
            FedGS's accumulated update.
    """

    def __init__(
        self,
        alpha: float | None = None,
        alpha_offset: float = 0.1,
        sizes: Literal["inverse", "equal", "direct"] = "inverse",
        update: Literal["weights", "fedgs"] = "weights",
    ) -> None:
        self._alpha = alpha
        self._offset = alpha_offset
        self._sizes = sizes
        self._update = update

    def _start(self) -> None:
        self._sum = WeightedSum()
        self._mean = WeightedSum()

    def _take(self, update: SiteUpdate) -> None:
        if self._update == "fedgs":
            update = replace(update, weights=scaled_weights(update, self.model))
        self.store[update.site] = update.weights
        if update.num_examples > 0:
            self._sum.add(update.weights, self._size(update.num_examples))
            self._mean.add(update.weights, 1.0)

    def _close(self) -> Aggregate:
        return Aggregate(self._whole(self._mean.mean(self.model)), self._mix, self.state)

    def alpha(self) -> float:
        """Return α of the round so far."""
        if self._alpha is not None:
            return self._alpha
        return min(1.0, self._offset + 1.0 / max(1, self._trained()))

    def _trained(self) -> int:
        return sum(1 for count in self.counts.values() if count > 0)

    def _size(self, count: int) -> float:
        if count == 0:
            return 0.0
        return {"inverse": 1.0 / count, "equal": 1.0, "direct": float(count)}[self._sizes]

    def _mix(self, site: str) -> dict[str, npt.NDArray[np.generic]]:
        own = self.store[site]
        count = self.counts[site]
        if self._trained() - (1 if count > 0 else 0) == 0:
            return {name: own[name] for name in self.model}
        alpha, size = self.alpha(), self._size(count)
        mixed: dict[str, npt.NDArray[np.generic]] = {}
        for name, like in self.model.items():
            array = own[name]
            if is_averaged(array):
                mine = array.astype(np.float64)
                others = (self._sum.sums[name] - size * mine) / (self._sum.total - size)
                array = (alpha * mine + (1.0 - alpha) * others).astype(like.dtype)
            mixed[name] = array
        return mixed
