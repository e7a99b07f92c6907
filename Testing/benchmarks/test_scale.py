"""However many sites and rounds, the server holds at most four models."""

import pytest
from many_sites import Size, cost, run

from FedSegCore.learning.exchange import ExchangeConfig

HALF = ExchangeConfig(precision="float16", downlink="float16")
MOST = 4.0


@pytest.mark.slow
def test_a_thousand_sites_complete_a_round_with_at_most_four_models_in_memory(tmp_path):
    assert cost(Size(1000, 131_072), "fedavg", HALF, tmp_path).server_models <= MOST


@pytest.mark.parametrize("rule", ["fedavg", "flames", "median"])
def test_the_models_held_do_not_grow_with_the_number_of_sites(tmp_path, monkeypatch, rule):
    # the median's pieces, whose floor is 32 MB, in proportion to this model
    monkeypatch.setattr("FedSegCore.federation.aggregation.robust._AT_ONCE", 8192)
    few, more = (cost(Size(sites, 131_072), rule, HALF, tmp_path / str(sites)).server_models for sites in (10, 40))
    assert few <= MOST
    assert more <= MOST
    assert more - few < 0.5


def test_memory_does_not_grow_with_rounds(tmp_path):
    peaks = run(Size(9, 131_072, 5), "flames", HALF, tmp_path).round_peaks
    assert len(peaks) == 5
    # the first round has no personal models to send yet
    assert peaks[4] < 1.1 * peaks[1]


def test_full_precision_takes_one_model_more_at_most(tmp_path):
    assert cost(Size(12, 131_072), "fedavg", ExchangeConfig(), tmp_path).server_models <= MOST + 1.0
