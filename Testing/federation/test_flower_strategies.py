"""Flower's own strategies through the adapter, against their formulas."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.flower_strategy import STRATEGIES, FlowerStrategy
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.config import AggregationConfig

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


def test_flower_does_not_say_that_nothing_is_trained_or_that_fedprox_is_off(monkeypatch):
    """A strategy is used for its mathematics alone; what it warns of then would mislead who reads the log."""
    said = []
    log = logging.getLogger("flwr")
    monkeypatch.setattr(log, "handlers", [SimpleNamespace(level=0, handle=said.append)])
    for name in ("FedProx", "FedAvgM"):
        run(FlowerStrategy(name), updates(2.0, 6.0))
    assert [record.getMessage() for record in said] == []
    log.warning("what Flower says otherwise is heard")
    assert len(said) == 1


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


def normed(weight: float, variance: float, tracked: int = 0) -> dict:
    return {
        "bn.weight": np.full(2, weight, np.float32),
        "bn.running_mean": np.full(2, variance / 2, np.float32),
        "bn.running_var": np.full(2, variance, np.float32),
        "bn.num_batches_tracked": np.asarray(tracked, np.int64),
    }


@pytest.mark.parametrize("policy", ["share", "local"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("FedAdam", {}),
        ("FedYogi", {}),
        ("FedAdagrad", {}),
        ("FedAvgM", {"server_momentum": 0.9}),
        ("QFedAvg", {"q": 0.2, "client_learning_rate": 0.1}),
    ],
)
def test_an_optimiser_of_the_server_leaves_running_statistics_to_the_mean(name, arguments, policy):
    """Stepped like weights, small variances became negative within a few rounds, and the network gave no numbers."""
    options = {"strategy": name, "arguments": arguments, "batch_norm": policy}
    group, state = normed(1.0, 0.3), {}
    for _ in range(6):
        rule = build_rule(AggregationConfig(rule="flower", options=options))
        rule.begin(group, state, {})
        rule.fold(SiteUpdate("a", normed(2.0, 0.02, 5), 1, loss=0.5))
        rule.fold(SiteUpdate("b", normed(3.0, 0.06, 7), 3, loss=0.5))
        made = rule.finish()
        group, state = made.group_model, made.rule_state
        assert_allclose(group["bn.running_var"], 0.05, rtol=1e-6)
        assert_allclose(group["bn.running_mean"], 0.025, rtol=1e-6)
        assert group["bn.num_batches_tracked"] == 7
    # what it remembers is of weights alone, and they are stepped
    assert not [key for key in state if key.startswith("flower/") and "running" in key]
    assert (group["bn.weight"] > 1.0).all()


def test_a_robust_strategy_keeps_running_statistics_to_itself():
    """A mean beside it would let a single site move them."""
    rule = FlowerStrategy("FedMedian")
    rule.begin(normed(1.0, 0.3), {}, {})
    for site, variance in (("a", 0.1), ("b", 0.2), ("c", 1e6)):
        rule.fold(SiteUpdate(site, normed(2.0, variance), 10))
    assert_allclose(rule.finish().group_model["bn.running_var"], 0.2)


def test_a_run_of_before_goes_on_without_the_statistics_moments():
    """Moments of BatchNorm's statistics in a rule's state are left; FedAvgM's list, which has no names, begins anew."""
    old = {"flower/round": np.asarray(3)}
    old |= {f"flower/m_t/{key}": np.full(2, 0.5) for key in ("bn.weight", "bn.running_mean", "bn.running_var")}
    old |= {f"flower/v_t/{key}": np.full(2, 0.5) for key in ("bn.weight", "bn.running_mean", "bn.running_var")}
    old |= {f"flower/momentum_vector/{n}": np.full(2, 0.5) for n in range(3)}
    for name in ("FedAdam", "FedAvgM"):
        rule = FlowerStrategy(name, {"server_momentum": 0.5} if name == "FedAvgM" else {})
        rule.begin(normed(1.0, 0.3), old, {})
        rule.fold(SiteUpdate("a", normed(2.0, 0.1), 1))
        made = rule.finish()
        assert_allclose(made.group_model["bn.running_var"], 0.1)
        assert np.isfinite(made.group_model["bn.weight"]).all()


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam"])
def test_noise_of_the_server_covers_running_statistics_and_makes_no_variance_negative(name):
    rule = FlowerStrategy(name, clipping_norm=1.0, noise_multiplier=5.0)
    rule.begin(normed(1.0, 0.01), {}, {})
    for site in "abc":
        rule.fold(SiteUpdate(site, normed(1.1, 0.01), 1))
    made = rule.finish().group_model
    assert (made["bn.running_var"] >= 0.0).all()
    assert not np.allclose(made["bn.running_mean"], 0.005, atol=1e-3)


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


POINTS = np.random.default_rng(5).normal(1.0, 2.0, (7, 6)).astype(np.float32)
SIZES = (3, 1, 4, 1, 5, 9, 2)
LOSSES = (0.5, 0.25, 1.0, 0.75, 2.0, 0.125, 0.3)


def seven():
    zipped = enumerate(zip(POINTS, SIZES, LOSSES, strict=True))
    return [SiteUpdate(f"s{k}", {"w": p.reshape(2, 3)}, n, loss=loss) for k, (p, n, loss) in zipped]


def nearest_first(faulty: int) -> np.ndarray:
    """Indices of POINTS by Krum's score: the summed squared distances to the N − f − 2 nearest others."""
    wide = POINTS.astype(np.float64)
    distances = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    return np.argsort(np.sort(distances, axis=1)[:, 1 : 1 + len(POINTS) - faulty - 2].sum(axis=1), kind="stable")


def krum_by_hand(start):
    return POINTS[nearest_first(1)[0]]


def multi_krum_by_hand(start):
    chosen = nearest_first(1)[:3]
    return np.average(POINTS[chosen], axis=0, weights=np.array(SIZES)[chosen])


def bulyan_by_hand(start):
    # θ = N − 2f = 5 by Multi-Krum; of every value the mean of the β = θ − 2f = 3 nearest to the median
    chosen = POINTS[nearest_first(1)[:5]].astype(np.float64)
    order = np.argsort(np.abs(chosen - np.median(chosen, axis=0)), axis=0, kind="stable")
    return np.take_along_axis(chosen, order[:3], axis=0).mean(axis=0)


def mean_by_hand(start):
    return np.average(POINTS.astype(np.float64), axis=0, weights=SIZES)


def adagrad_by_hand(start):
    # β1 = 0: the first step is Δ, its square the sum of squares
    delta = mean_by_hand(start) - start
    return start + 0.5 * delta / (np.abs(delta) + 0.01)


def yogi_by_hand(start):
    # v0 = 0: v = (1 − β2)·Δ²
    delta = mean_by_hand(start) - start
    return start + 0.5 * 0.1 * delta / (np.sqrt(0.01 * delta**2) + 0.01)


def q_fedavg_by_hand(start):
    # L = 1/lr, Δ_k = L·(w − w_k), step = Σ F_k^q Δ_k / Σ (q·F_k^(q−1)·‖Δ_k‖² + L·F_k^q)
    losses, lipschitz, q = np.array(LOSSES), 1 / 0.5, 0.2
    moves = lipschitz * (start - POINTS.astype(np.float64))
    scale = q * losses ** (q - 1) * (moves**2).sum(axis=1) + lipschitz * losses**q
    return start - (losses[:, None] ** q * moves).sum(axis=0) / scale.sum()


@pytest.mark.parametrize(
    ("name", "arguments", "by_hand"),
    [
        ("Bulyan", {"num_malicious_nodes": 1}, bulyan_by_hand),
        ("FedAdagrad", {"eta": 0.5, "tau": 0.01}, adagrad_by_hand),
        ("FedAvg", {}, mean_by_hand),
        ("FedMedian", {}, lambda start: np.median(POINTS, axis=0)),
        ("FedTrimmedAvg", {"beta": 0.2}, lambda start: np.sort(POINTS, axis=0)[1:-1].mean(axis=0)),
        ("FedYogi", {"eta": 0.5, "tau": 0.01, "beta_1": 0.9, "beta_2": 0.99}, yogi_by_hand),
        ("Krum", {"num_malicious_nodes": 1}, krum_by_hand),
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 3}, multi_krum_by_hand),
        ("QFedAvg", {"client_learning_rate": 0.5, "q": 0.2}, q_fedavg_by_hand),
    ],
)
def test_a_round_of_seven_sites_against_plain_numpy(name, arguments, by_hand):
    start = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    made = run(FlowerStrategy(name, arguments), seven(), {"w": start.reshape(2, 3)})
    assert_allclose(made.group_model["w"].ravel(), by_hand(start), rtol=2e-5, atol=1e-6)


def test_yogi_and_adagrad_remember_their_second_moments():
    # two rounds of one value: Δ1 = 2 − 1 = 1, then Δ2 = 5 − w1
    for name, second in (
        ("FedAdagrad", lambda v, d: v + d**2),
        ("FedYogi", lambda v, d: v - 0.01 * d**2 * np.sign(v - d**2)),
    ):
        arguments = {"eta": 0.1, "tau": 1e-3, **({"beta_1": 0.9, "beta_2": 0.99} if name == "FedYogi" else {})}
        w, m, v, group, state = 1.0, 0.0, 0.0, GROUP, {}
        keep = 0.9 if name == "FedYogi" else 0.0
        for sent in (2.0, 5.0):
            delta = sent - w
            m, v = keep * m + (1 - keep) * delta, second(v, delta)
            w += 0.1 * m / (np.sqrt(v) + 1e-3)
            made = run(FlowerStrategy(name, arguments), updates(sent), group, state)
            group, state = made.group_model, made.rule_state
            assert_allclose(group["w"], w, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("FedTrimmedAvg", {"beta": 0.5}),
        ("FedTrimmedAvg", {"beta": -0.1}),
        ("Krum", {"num_malicious_nodes": 1.5}),
        ("Krum", {"num_malicious_nodes": -3}),
        ("MultiKrum", {"num_nodes_to_select": 0}),
        ("FedAdam", {"beta_1": 1.0}),
        ("FedAdam", {"eta": float("nan")}),
        ("FedProx", {"proximal_mu": 0.1}),
        ("QFedAvg", {"q": 0.2}),
        ("QFedAvg", {"q": -1.0, "client_learning_rate": 0.1}),
    ],
)
def test_arguments_that_would_fail_after_a_round_are_refused_before(name, arguments):
    with pytest.raises(BadInputError) as refused:
        FlowerStrategy(name, arguments)
    assert refused.value.code == "federation.rule-options"


def test_every_strategy_has_a_test_of_its_value():
    elsewhere = {"FedAdam", "FedAvgM", "FedProx"}
    here = {"Bulyan", "FedAdagrad", "FedAvg", "FedMedian", "FedTrimmedAvg", "FedYogi", "Krum", "MultiKrum", "QFedAvg"}
    assert here | elsewhere == set(STRATEGIES)


def test_bulyan_says_that_it_needs_more_answers():
    with pytest.raises(ValueError, match="Bulyan needs 7 answers, 5 were of use"):
        run(FlowerStrategy("Bulyan", {"num_malicious_nodes": 1}), updates(1.0, 2.0, 3.0, 4.0, 5.0))


@pytest.mark.parametrize("loss", [None, -0.5])
def test_q_fedavg_takes_no_site_that_does_not_tell_its_loss(loss):
    rule = FlowerStrategy("QFedAvg", {"client_learning_rate": 0.1})
    rule.begin(GROUP, {}, {})
    with pytest.raises(ValueError, match="training loss"):
        rule.fold(replace(updates(2.0)[0], loss=loss))


def test_an_empty_round_keeps_model_and_state():
    state = {"flower/round": np.asarray(3)}
    made = run(FlowerStrategy("FedAdam"), [], GROUP, state)
    assert made.group_model is GROUP
    assert made.rule_state == state
