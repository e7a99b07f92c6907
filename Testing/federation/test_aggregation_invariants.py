"""What holds for any sizes, values and orders."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from FedSegCore.federation.aggregation.fedavg import FedAvg
from FedSegCore.federation.aggregation.fedgs import FedGs
from FedSegCore.federation.aggregation.flames import Flames
from FedSegCore.federation.aggregation.registry import build_rule, rule_names
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.config import AggregationConfig

FLOWER = {
    "FedAdam": {},
    "FedAvg": {},
    "FedMedian": {},
    "Krum": {"num_malicious_nodes": 1},
    "QFedAvg": {"client_learning_rate": 0.1},
}
RULES = [AggregationConfig(rule=name) for name in rule_names() if name != "flower"]
RULES += [
    AggregationConfig(rule="flower", options={"strategy": name, "arguments": given}) for name, given in FLOWER.items()
]
SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=8)


def finish(rule, group, updates):
    rule.begin(group, {}, {})
    for update in updates:
        rule.fold(update)
    return rule.finish()


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(["inverse", "equal", "direct"]), st.none() | st.floats(0.0, 1.0))
def test_flames_weights_are_a_partition_of_one(counts, sizes, alpha):
    # site k's model is the k-th unit vector: a mix then shows the weights themselves
    unit = np.eye(len(counts), dtype=np.float64)
    updates = [SiteUpdate(f"s{k}", {"w": unit[k]}, n) for k, n in enumerate(counts)]
    made = finish(Flames(alpha=alpha, sizes=sizes), {"w": np.zeros(len(counts))}, updates)
    used = alpha if alpha is not None else min(1.0, 0.1 + 1 / len(counts))
    for k in range(len(counts)):
        weights = made.site_model(f"s{k}")["w"]
        assert_allclose(weights.sum(), 1.0, rtol=1e-9)
        assert (weights >= -1e-12).all()
        assert_allclose(weights[k], 1.0 if len(counts) == 1 else used, rtol=1e-9, atol=1e-12)
    assert_allclose(made.group_model["w"], 1.0 / len(counts), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 99)), min_size=1, max_size=6), st.integers(0, 2**31))
def test_fedgs_with_eta_one_is_step_weighted_averaging(counts, seed):
    # η ≡ 1 and no decay: C_k = w − w_k, so w − Σ(s_k/Σs)·C_k = Σ(s_k/Σs)·w_k
    generator = np.random.default_rng(seed)
    group = {"w": generator.normal(size=(3, 2)).astype(np.float32)}
    sent = [generator.normal(size=(3, 2)).astype(np.float32) for _ in counts]
    updates = [
        SiteUpdate(f"s{k}", {"w": arrays}, n, steps, {"fedgs/w": group["w"].astype(np.float64) - arrays})
        for k, ((steps, n), arrays) in enumerate(zip(counts, sent, strict=True))
    ]
    by_update = finish(FedGs(), group, updates).group_model["w"]
    assert_allclose(by_update, finish(FedAvg("steps"), group, updates).group_model["w"], rtol=1e-5, atol=1e-6)
    expected = np.average(np.array(sent, np.float64), axis=0, weights=[steps for steps, _ in counts])
    assert_allclose(by_update, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_order_of_sites_and_of_names_does_not_matter(counts, random, config):
    generator = np.random.default_rng(len(counts))
    group = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32), "i": np.zeros((), np.int64)}

    def update(k, n):
        weights = {
            "a": generator.normal(size=(2, 3)).astype(np.float32),
            "b": generator.normal(size=4).astype(np.float32),
            "i": np.asarray(k, np.int64),
        }
        extras = {"fedgs/a": generator.normal(size=(2, 3)).astype(np.float32), "fedgs/b": weights["b"]}
        return SiteUpdate(f"s{k}", weights, n, n, extras, loss=0.1 + k)

    updates = [update(k, n) for k, n in enumerate(counts)]
    shuffled = [replace(u, weights=dict(reversed(u.weights.items()))) for u in updates]
    random.shuffle(shuffled)
    one = finish(build_rule(config), group, updates)
    other = finish(build_rule(config), group, shuffled)
    for key in group:
        assert_allclose(other.group_model[key], one.group_model[key], rtol=1e-6, atol=1e-7)
    assert_array_equal(one.group_model["i"], other.group_model["i"])
    if one.site_model is not None:
        for k in range(len(counts)):
            assert_allclose(other.site_model(f"s{k}")["a"], one.site_model(f"s{k}")["a"], rtol=1e-5, atol=1e-6)
