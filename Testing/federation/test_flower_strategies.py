"""Flower's own strategies through the adapter, against their formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from FedSegCore.federation.aggregation.flower_strategy import STRATEGIES, FlowerStrategy
from FedSegCore.federation.aggregation.rule import SiteUpdate

GROUP = {"w": np.full(3, 1.0, np.float32), "counter": np.asarray(4, np.int64)}


def updates(*values, n=None):
    n = n or [1] * len(values)
    return [
        SiteUpdate(f"s{k}", {"w": np.full(3, value, np.float32), "counter": np.asarray(10 + k)}, n[k])
        for k, value in enumerate(values)
    ]


def run(rule, sent, group=GROUP, state=None):
    rule.begin(group, state or {}, {})
    for update in sent:
        rule.fold(update)
    return rule.finish()


def test_fedavg_and_fedprox_are_weighted_means_and_counters_are_not_averaged():
    for name in ("FedAvg", "FedProx"):
        made = run(FlowerStrategy(name), updates(2.0, 6.0, n=[1, 3]))
        assert_allclose(made.group_model["w"], 5.0)
        assert made.group_model["counter"] == 11
        assert made.group_model["w"].dtype == np.float32


def test_median_trimmed_mean_and_krum():
    five = updates(1.0, 2.0, 3.0, 4.0, 1000.0)
    assert_allclose(run(FlowerStrategy("FedMedian"), five).group_model["w"], 3.0)
    assert_allclose(run(FlowerStrategy("FedTrimmedAvg", {"beta": 0.2}), five).group_model["w"], 3.0)
    krum = run(FlowerStrategy("Krum", {"num_malicious_nodes": 1}), five).group_model["w"]
    assert krum[0] in (2.0, 3.0)


def test_fedadam_remembers_its_moments_from_round_to_round():
    arguments = {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}
    w, m, v = 1.0, 0.0, 0.0
    group, state = GROUP, {}
    for number, sent in enumerate((2.0, 4.0), start=1):
        delta = sent - w
        m = 0.9 * m + 0.1 * delta
        v = 0.99 * v + 0.01 * delta**2
        rate = 0.1 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        w += rate * m / (np.sqrt(v) + 1e-3)
        # a new object every round, as after a restart of the server
        made = run(FlowerStrategy("FedAdam", arguments), updates(sent), group, state)
        group, state = made.group_model, made.rule_state
        assert_allclose(group["w"], w, rtol=1e-5)
    assert state["flower/round"] == 2


def test_fedavgm_remembers_its_momentum():
    # v1 = 1 − 2 = −1 → 2; v2 = 0.5·(−1) + (2 − 3) = −1.5 → 3.5
    arguments = {"server_momentum": 0.5}
    first = run(FlowerStrategy("FedAvgM", arguments), updates(2.0))
    second = run(FlowerStrategy("FedAvgM", arguments), updates(3.0), first.group_model, first.rule_state)
    assert_allclose(first.group_model["w"], 2.0)
    assert_allclose(second.group_model["w"], 3.5)


def test_private_clipping_bounds_every_sites_update():
    # updates of norm √3·9 and √3·0.1; the first is clipped to norm 1 along (1,1,1)/√3, the second is not
    made = run(FlowerStrategy("FedAvg", clipping_norm=1.0, noise_multiplier=0.0), updates(10.0, 1.1))
    assert_allclose(made.group_model["w"], 1.0 + (1 / np.sqrt(3) + 0.1) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="zero"):
        run(FlowerStrategy("FedAvg", clipping_norm=1.0, noise_multiplier=0.0), updates(1.0))


def test_private_noise_has_flowers_standard_deviation():
    # noise_multiplier·clipping_norm / sites = 2·0.5/4 = 0.25 per value
    group = {"w": np.zeros(20_000, np.float32)}
    sent = [SiteUpdate(f"s{k}", {"w": np.full(20_000, 1e-9, np.float32)}, 1) for k in range(4)]
    made = run(FlowerStrategy("FedAvg", clipping_norm=0.5, noise_multiplier=2.0), sent, group)
    assert made.group_model["w"].std() == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_takes_a_round_of_seven_sites(name):
    arguments = {"num_malicious_nodes": 1} if name in ("Bulyan", "Krum", "MultiKrum") else {}
    if name == "MultiKrum":
        arguments["num_nodes_to_select"] = 3
    made = run(FlowerStrategy(name, arguments), updates(*[2.0] * 7))
    moved = made.group_model["w"]
    assert np.isfinite(moved).all()
    assert (moved > 1.0).all()
    assert_array_equal(moved, moved[0])


def test_an_empty_round_keeps_model_and_state():
    state = {"flower/round": np.asarray(3)}
    made = run(FlowerStrategy("FedAdam"), [], GROUP, state)
    assert made.group_model is GROUP
    assert made.rule_state == state
