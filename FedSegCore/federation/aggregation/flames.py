"""FLAMES (Expert Systems 2025; METHODS §3): each site its own mix with the others, the server the mean."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.fedgs import scaled_weights
from FedSegCore.federation.aggregation.folding import FoldingRule, WeightedSum, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteUpdate

_SUM = "/sum"
"""T's place in the store; no site has such a name."""


class Flames(FoldingRule):
    """ŵ_k = α·w_k + (1−α)·Σ_{j≠k} β_kj·w_j with β_kj = v_j / Σ_{i≠k} v_i; group model W = (1/N)·Σ w_k.

    N counts the sites with n_k > 0. A lone site gets its own model back, and W, which is that model then, is marked
    as one that no other site may be sent. A site that did not answer gets α·(its own model) + (1−α)·Σ β_j·w_j of
    those that trained, N counting it, too; with ``absent="keep"`` it keeps its own model. A site with n_k = 0 weighs
    nothing in any mix or in W; its own mix is the same formula. Only T = Σ v_j·w_j is kept in memory (float64), and
    only while updates come; each site's own model lies in the store, at the end T too, W is summed from there tensor
    by tensor, and a tensor of ŵ_k = α·w_k + (1−α)·(T − v_k·w_k)/(Σv − v_k) is computed when asked for. Tensors that
    are not floats are the site's own.

    Args:
        alpha: α for every N; None takes min(1, ``alpha_offset`` + 1/N).
        alpha_offset: the paper's 0.1.
        sizes: v_j is 1/n_j (``"inverse"``, the paper), 1 (``"equal"``) or n_j (``"direct"``).
        update: what stands for w_k: the ``"weights"`` sent, or, with ``"fedgs"``, the received model moved by
            FedGS's accumulated update.
        absent: what becomes of the own model of a site that did not answer: ``"mix"`` or ``"keep"``. The paper has no
            such sites; experiments/dropout-remedies.toml compares them.
    """

    def __init__(
        self,
        alpha: float | None = None,
        alpha_offset: float = 0.1,
        sizes: Literal["inverse", "equal", "direct"] = "inverse",
        update: Literal["weights", "fedgs"] = "weights",
        absent: Literal["keep", "mix"] = "mix",
    ) -> None:
        self._alpha = alpha
        self._offset = alpha_offset
        self._sizes = sizes
        self._update = update
        self._absent = absent

    def _start(self) -> None:
        self._sum = WeightedSum()

    def finish(self) -> Aggregate:
        """See ``AggregationRule.finish``; in a round in which nobody trained every site keeps the model it has."""
        mixed = self._absent == "mix" and self._trained() > 0
        return replace(
            super().finish(),
            site_model=self._mix,
            absent_model=self._mix_of_absent if mixed else None,
            alone=self._trained() < 2,
        )

    def _take(self, update: SiteUpdate) -> None:
        if self._update == "fedgs":
            update = replace(update, weights=scaled_weights(update, self.model))
        self.store[update.site] = update.weights
        if update.num_examples > 0:
            self._sum.add(update.weights, self._size(update.num_examples))

    def _close(self) -> Aggregate:
        self.store[_SUM] = self._sum.sums
        self._sum.sums = {}
        floats = {name: self._mean(name) for name, array in self.model.items() if is_averaged(array)}
        return Aggregate(self._whole(floats), rule_state=self.state)

    def _mean(self, name: str) -> npt.NDArray[np.generic]:
        total = np.zeros(self.model[name].shape)
        trained = [site for site, count in sorted(self.counts.items()) if count > 0]
        for site in trained:
            total += np.asarray(self.store[site][name], np.float64)
        return (total / len(trained)).astype(self.model[name].dtype)

    def alpha(self, absent: int = 0) -> float:
        """Return α of the round so far, with ``absent`` more sites than have trained."""
        if self._alpha is not None:
            return self._alpha
        return min(1.0, self._offset + 1.0 / max(1, self._trained() + absent))

    def _trained(self) -> int:
        return sum(1 for count in self.counts.values() if count > 0)

    def _size(self, count: int) -> float:
        if count == 0:
            return 0.0
        return {"inverse": 1.0 / count, "equal": 1.0, "direct": float(count)}[self._sizes]

    def _mix(self, site: str) -> Arrays:
        if not self._trained():
            raise KeyError(site)
        count = self.counts[site]
        own = self.store[site]
        if self._trained() - (1 if count > 0 else 0) == 0:
            return own
        return _Mix(own, self.store[_SUM], self.alpha(), self._size(count), self._sum.total)

    def _mix_of_absent(self, _site: str, own: Arrays) -> Arrays:
        return _Mix(own, self.store[_SUM], self.alpha(absent=1), 0.0, self._sum.total)


class _Mix(Mapping[str, npt.NDArray[np.generic]]):
    """ŵ_k, each tensor computed when asked for."""

    def __init__(self, own: Arrays, sums: Arrays, alpha: float, size: float, total: float) -> None:
        self._own = own
        self._sums = sums
        self._alpha = alpha
        self._size = size
        self._total = total

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        own = self._own[name]
        if not is_averaged(own):
            return own
        mine = own.astype(np.float64)
        others: npt.NDArray[np.float64] = np.asarray(self._sums[name], np.float64) - self._size * mine
        others /= self._total - self._size
        mine *= self._alpha
        others *= 1.0 - self._alpha
        mine += others
        return mine.astype(own.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)
