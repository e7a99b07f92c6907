"""How large lesions are, as counts that a site may tell, and from which size on one is small; without torch."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from FedSegCore.learning.config import TrainingConfig

SMALL_SHARE = 1.0 / 3.0
"""Share of the lesions that count as small where the threshold is chosen automatically."""

SMALLEST_THRESHOLD = 10.0
"""A lesion that covers more than a tenth of its image is never called small automatically."""

MOST_BINS = 32
"""Counts of lesion sizes have at most so many bins: beyond, a lesion is smaller than 2^-31 of its image."""


def size_counts(shares: Iterable[float]) -> tuple[int, ...]:
    """Return how many images have a lesion of which size: entry b counts 2^b <= A/a < 2^(b+1).

    Args:
        shares: a/A of images, in [0, 1]; those without a lesion (0) are not counted.
    """
    bins = [min(int(math.log2(1.0 / share)), MOST_BINS - 1) for share in shares if share > 0.0]
    return tuple(int(n) for n in np.bincount(bins)) if bins else ()


def pooled_threshold(counts: Sequence[int]) -> float | None:
    """Return the A/a that the smallest third of all sites' lesions reaches, at least ``SMALLEST_THRESHOLD``.

    Within a bin the sizes are taken to lie evenly on the logarithmic scale.

    Args:
        counts: sums over sites of ``size_counts``.

    Returns:
        τ; None where no lesion was counted.
    """
    # The small term keeps two thirds of 9 from being more than 6.
    wanted = (1.0 - SMALL_SHARE) * sum(counts) - 1e-6
    passed = 0
    for number, count in enumerate(counts):
        if count and passed + count >= wanted:
            return max(2.0 ** (number + (wanted - passed) / count), SMALLEST_THRESHOLD)
        passed += count
    return None


def with_pooled_sizes(training: TrainingConfig, counts: Sequence[int]) -> TrainingConfig:
    """Return ``training`` with FedGS's τ (and l = τ, unless given) chosen from ``counts`` where it is not given."""
    fedgs = training.fedgs
    chosen = pooled_threshold(counts)
    if fedgs is None or fedgs.threshold is not None or chosen is None:
        return training
    update = {"threshold": chosen, "log_base": fedgs.log_base or chosen}
    return training.model_copy(update={"fedgs": fedgs.model_copy(update=update)})
