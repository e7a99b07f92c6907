"""Rules that survive a site whose update is wrong: median, trimmed mean, Krum.

They need all updates at once; these wait in the store and are read back a piece of a tensor at a time.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.folding import FoldingRule, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays, SiteUpdate
from FedSegCore.federation.array_files import LazyArrays

_AT_ONCE = 2**22
"""Values of all sites that are in memory at once, in float64."""


class StoringRule(FoldingRule):
    """Base of the rules that see all updates together; sites with n = 0 are left out."""

    def _start(self) -> None:
        self._sites: list[str] = []

    def _take(self, update: SiteUpdate) -> None:
        if update.num_examples > 0:
            self.store[update.site] = update.weights
            self._sites.append(update.site)

    def _stacks(self, name: str) -> Iterator[npt.NDArray[np.float64]]:
        """Yield tensor ``name`` of all sites piece by piece, float64 (site, values in a row), sites by name."""
        models = [self.store[site] for site in sorted(self._sites)]
        size = self.model[name].size
        piece = max(1, _AT_ONCE // len(models))
        for start in range(0, size, piece):
            yield np.stack([_part(model, name, start, min(start + piece, size)) for model in models])

    def _combine(
        self, together: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Return the float tensors made by ``together``: (site, values) to (values)."""
        floats: dict[str, npt.NDArray[np.generic]] = {}
        for name in self._float_names():
            like = self.model[name]
            pieces = [together(stack).astype(like.dtype) for stack in self._stacks(name)]
            floats[name] = np.concatenate([*pieces, np.zeros(0, like.dtype)]).reshape(like.shape)
        return floats

    def _float_names(self) -> list[str]:
        return [name for name, array in self.model.items() if is_averaged(array)]


class Median(StoringRule):
    """The median over sites of every value (Yin et al., ICML 2018)."""

    def _close(self) -> Aggregate:
        floats = self._combine(lambda stack: np.median(stack, axis=0, overwrite_input=True))
        return Aggregate(self._whole(floats), rule_state=self.state)


class TrimmedMean(StoringRule):
    """The mean over sites of every value without its ⌊βN⌋ smallest and largest (Yin et al., ICML 2018).

    Args:
        beta: share cut at each end, in [0, 0.5).
    """

    def __init__(self, beta: float = 0.2) -> None:
        self._beta = beta

    def _close(self) -> Aggregate:
        cut = int(self._beta * len(self._sites))

        def trimmed(stack: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            stack.sort(axis=0)
            kept: npt.NDArray[np.float64] = stack[cut : len(stack) - cut].mean(axis=0)
            return kept

        return Aggregate(self._whole(self._combine(trimmed)), rule_state=self.state)


class Krum(StoringRule):
    """The one update nearest to its neighbours (Blanchard et al., NeurIPS 2017).

    Its score is the sum of squared distances to its max(1, N − f − 2) nearest others; the smallest wins, of equals
    the first by name. What is not finite is infinitely far from everything. Everything of the model, buffers too, is
    the winner's.

    Args:
        malicious: sites f that may be wrong.
    """

    def __init__(self, malicious: int = 1) -> None:
        self._malicious = malicious

    def _close(self) -> Aggregate:
        winner = sorted(self._sites)[int(np.argmin(self._scores()))]
        chosen = self.store[winner]
        return Aggregate({name: chosen[name] for name in self.model}, rule_state=self.state)

    def _scores(self) -> npt.NDArray[np.float64]:
        sites = len(self._sites)
        distances = np.zeros((sites, sites))
        for name in self._float_names():
            for stack in self._stacks(name):
                with np.errstate(invalid="ignore"):  # infinity less infinity is seen to below
                    for row in range(sites):
                        distances[row] += ((stack - stack[row]) ** 2).sum(axis=1)
        distances[np.isnan(distances)] = np.inf
        neighbours = max(1, sites - self._malicious - 2)
        # a site's distance to itself, 0, comes first
        return np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(axis=1)


def _part(model: Arrays, name: str, start: int, stop: int) -> npt.NDArray[np.float64]:
    found = model.part(name, start, stop) if isinstance(model, LazyArrays) else model[name].reshape(-1)[start:stop]
    return found.astype(np.float64)
