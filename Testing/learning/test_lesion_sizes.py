"""What is small, chosen from lesion sizes that sites tell as counts."""

import numpy as np
import pytest

from FedSegCore.learning.config import FedGsConfig, TrainingConfig
from FedSegCore.learning.lesion_sizes import MOST_BINS, pooled_threshold, size_counts, with_pooled_sizes


def test_sizes_are_counted_to_a_factor_of_two():
    # A/a = 1, 1.9 | 2, 3 | (4..8 none) | 8, 15.9 ; no lesion is not counted
    shares = [1.0, 1 / 1.9, 1 / 2, 1 / 3, 1 / 8, 1 / 15.9, 0.0]
    assert size_counts(shares) == (2, 2, 0, 2)
    assert size_counts([0.0]) == size_counts([]) == ()
    assert len(size_counts([1e-300])) == MOST_BINS


def test_the_smallest_third_of_all_sites_lesions_is_small():
    # nine lesions: six larger ones in [16, 32), three in [128, 256): two thirds are passed where the first bin ends
    assert pooled_threshold((0, 0, 0, 0, 6, 0, 0, 3)) == pytest.approx(32.0)
    # half of a bin of twelve is passed at 8 of 12: 2^(5 + 8/12)
    assert pooled_threshold((0, 0, 0, 0, 0, 12)) == pytest.approx(2 ** (5 + 8 / 12))
    # larger than a tenth of the image is never small
    assert pooled_threshold((5, 1)) == 10.0
    assert pooled_threshold(()) is None
    assert pooled_threshold((0, 0)) is None


def test_counts_come_close_to_the_quantile_of_the_sizes_themselves():
    rng = np.random.default_rng(3)
    inverse = np.exp(rng.normal(4.5, 1.0, 3000))
    chosen = pooled_threshold(size_counts((1.0 / inverse).clip(max=1.0)))
    assert chosen == pytest.approx(np.quantile(inverse, 2 / 3), rel=0.05)


def test_only_what_is_not_given_is_chosen():
    counts = (0, 0, 0, 0, 6, 0, 0, 3)
    automatic = with_pooled_sizes(TrainingConfig(fedgs=FedGsConfig(normalise=True)), counts).fedgs
    assert automatic == FedGsConfig(
        normalise=True, threshold=pooled_threshold(counts), log_base=pooled_threshold(counts)
    )
    assert with_pooled_sizes(TrainingConfig(fedgs=FedGsConfig(log_base=100)), counts).fedgs.log_base == 100
    for training in (TrainingConfig(), TrainingConfig(fedgs=FedGsConfig(threshold=150))):
        assert with_pooled_sizes(training, counts) == training
    assert with_pooled_sizes(TrainingConfig(fedgs=FedGsConfig()), ()).fedgs == FedGsConfig()
