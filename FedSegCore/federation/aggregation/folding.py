"""What the rules share: one update per site, empty rounds, sums in float64, and tensors that are never averaged."""

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteStore, SiteUpdate

_AT_ONCE = 65_536

FloatSums = dict[str, npt.NDArray[np.float64]]


def is_averaged(array: npt.NDArray[np.generic]) -> bool:
    """Return whether a tensor is averaged: floats are; integers and booleans (counters, indices) never."""
    return array.dtype.kind == "f"


class WeightedSum:
    """Σ v·w of the float tensors in float64, one model at a time."""

    def __init__(self) -> None:
        self.sums: FloatSums = {}
        self.total = 0.0

    def add(self, arrays: Arrays, weight: float) -> None:
        """Add ``weight`` · ``arrays``; tensors that are not floats are passed over."""
        self.total += weight
        for name, array in arrays.items():
            if is_averaged(array):
                total = self.sums.setdefault(name, np.zeros(array.shape))
                _add(total.reshape(-1), array.reshape(-1), weight)

    def mean(self, like: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """Return Σ v·w / Σ v of every float tensor in the dtype it has in ``like``; the sums are used up."""
        means: dict[str, npt.NDArray[np.generic]] = {}
        for name in list(self.sums):
            means[name] = (self.sums.pop(name) / self.total).astype(like[name].dtype)
        return means


def _add(total: npt.NDArray[np.float64], array: npt.NDArray[np.generic], weight: float) -> None:
    """Add ``weight`` · ``array`` to ``total``, a piece at a time: in float64 a whole tensor is twice its size."""
    for start in range(0, total.size, _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        total[piece] += array[piece].astype(np.float64) * weight


class FoldingRule:
    """Base of the rules: keeps the round's bookkeeping, leaves the mathematics to ``_take`` and ``_close``.

    Sites with n = 0 weigh nothing. Tensors that are not floats come from the site with the most examples (of equals,
    the first by name), so that the result does not depend on the order of arrival.
    """

    def begin(self, group_model: Arrays, rule_state: Arrays, store: SiteStore) -> None:
        """See ``AggregationRule.begin``."""
        self.model = group_model
        self.state = rule_state
        self.store = store
        self.counts: dict[str, int] = {}
        self._kept: tuple[int, str] | None = None
        self._buffers: dict[str, npt.NDArray[np.generic]] = {}
        self._start()

    def fold(self, update: SiteUpdate) -> None:
        """See ``AggregationRule.fold``."""
        if update.site in self.counts:
            raise ValueError(f"site {update.site!r} has answered this round already")
        if update.weights.keys() != self.model.keys():
            raise ValueError("the update's tensors are not the model's")
        self._take(update)
        self.counts[update.site] = update.num_examples
        self._keep_buffers(update)

    def finish(self) -> Aggregate:
        """See ``AggregationRule.finish``."""
        if not any(self.counts.values()):
            return Aggregate(self.model, rule_state=self.state)
        return self._close()

    def _start(self) -> None:
        raise NotImplementedError

    def _take(self, update: SiteUpdate) -> None:
        raise NotImplementedError

    def _close(self) -> Aggregate:
        raise NotImplementedError

    def _keep_buffers(self, update: SiteUpdate) -> None:
        rank = (-update.num_examples, update.site)
        if update.num_examples > 0 and (self._kept is None or rank < self._kept):
            self._kept = rank
            self._buffers = {name: update.weights[name] for name, array in self.model.items() if not is_averaged(array)}

    def _whole(self, floats: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """Return ``floats`` with the buffers that are never averaged, in the model's order of names."""
        return {name: floats.get(name, self._buffers.get(name, array)) for name, array in self.model.items()}
