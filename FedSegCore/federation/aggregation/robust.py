"""Rules that survive a site whose update is wrong: median, trimmed mean, Krum.

They need all updates at once; these wait in the store and are read back one tensor at a time.
"""

import numpy as np
import numpy.typing as npt

from FedSegCore.federation.aggregation.folding import FoldingRule, is_averaged
from FedSegCore.federation.aggregation.rule import Aggregate, SiteUpdate


class StoringRule(FoldingRule):
    """Base of the rules that see all updates together; sites with n = 0 are left out."""

    def _start(self) -> None:
        self._sites: list[str] = []

    def _take(self, update: SiteUpdate) -> None:
        if update.num_examples > 0:
            self.store[update.site] = update.weights
            self._sites.append(update.site)

    def _stack(self, name: str) -> npt.NDArray[np.float64]:
        """Return tensor ``name`` of all sites, float64 (site, ...), sites by name."""
        return np.stack([self.store[site][name].astype(np.float64) for site in sorted(self._sites)])

    def _float_names(self) -> list[str]:
        return [name for name, array in self.model.items() if is_averaged(array)]


class Median(StoringRule):
    """The median over sites of every value (Yin et al., ICML 2018)."""

    def _close(self) -> Aggregate:
        floats = {
            name: np.median(self._stack(name), axis=0).astype(self.model[name].dtype) for name in self._float_names()
        }
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
        floats = {}
        for name in self._float_names():
            ordered = np.sort(self._stack(name), axis=0)
            floats[name] = ordered[cut : len(self._sites) - cut].mean(axis=0).astype(self.model[name].dtype)
        return Aggregate(self._whole(floats), rule_state=self.state)


class Krum(StoringRule):
    """The one update nearest to its neighbours (Blanchard et al., NeurIPS 2017).

    Its score is the sum of squared distances to its max(1, N − f − 2) nearest others; the smallest wins, of equals
    the first by name. Everything of the model, buffers too, is the winner's.

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
            stack = self._stack(name).reshape(sites, -1)
            for row in range(sites):
                distances[row] += ((stack - stack[row]) ** 2).sum(axis=1)
        neighbours = max(1, sites - self._malicious - 2)
        # a site's distance to itself, 0, comes first
        return np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(axis=1)
