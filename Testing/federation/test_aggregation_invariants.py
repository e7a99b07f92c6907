"""What holds for any sizes, values and orders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from FedSegCore.federation.aggregation.fedavg import FedAvg
from FedSegCore.federation.aggregation.fedgs import FedGs, trained_names
from FedSegCore.federation.aggregation.flames import Flames
from FedSegCore.federation.aggregation.registry import build_rule, rule_names
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.config import AggregationConfig
from FedSegCore.learning.config import FedGsConfig
from FedSegCore.learning.fedgs import UpdateAccumulator
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network

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


def adamw(weights, gradients, rate, decay):
    """AdamW in NumPy, double precision; returns where it ends and its steps without decay (Loshchilov and Hutter)."""
    w, m, v, steps = weights.astype(np.float64), 0.0, 0.0, []
    for t, gradient in enumerate(gradients.astype(np.float64), 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        steps.append(rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
        w = w * (1 - rate * decay) - steps[-1]
    return w, steps


def trained_site(site, start, gradients, etas, rate, decay):
    """Train one layer with torch's AdamW on given gradients, FedGS's sum beside it, as a site does."""
    layer = torch.nn.Linear(start.shape[1], start.shape[0], bias=False)
    layer.load_state_dict({"weight": torch.from_numpy(start.copy())})
    optimiser = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=decay)
    accumulator = UpdateAccumulator(optimiser, layer, FedGsConfig())
    for gradient, eta in zip(gradients, etas, strict=True):
        layer.weight.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        accumulator.add(eta)
    weights = {"weight": layer.weight.detach().numpy().copy()}
    return SiteUpdate(site, weights, 10, len(gradients), accumulator.result())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.floats(1e-3, 0.5),
    st.floats(1e-4, 0.1),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_fedgs_of_sites_that_train_with_adamw(steps, decay, rate, weighed, seed):
    """w − Σ_k (s_k/Σs) Σ_t η_t d_t; with η ≡ 1 the step-weighted mean of the sites' models less what decay took."""
    generator = np.random.default_rng(seed)
    start = generator.normal(size=(3, 2)).astype(np.float32)
    sent, expected, plain = [], start.astype(np.float64), start.astype(np.float64)
    for k, count in enumerate(steps):
        gradients = generator.normal(size=(count, 3, 2)).astype(np.float32)
        etas = generator.uniform(1.0, 3.0, count) if weighed else np.ones(count)
        update = trained_site(f"s{k}", start, gradients, etas, rate, decay)
        end, moves = adamw(start, gradients, rate, decay)
        assert_allclose(update.weights["weight"], end, rtol=1e-4, atol=1e-5)
        share = count / sum(steps)
        expected = expected - share * sum(eta * move for eta, move in zip(etas, moves, strict=True))
        plain = plain + share * (adamw(start, gradients, rate, 0.0)[0] - start)
        sent.append(update)
    made = finish(FedGs(), {"weight": start}, sent).group_model["weight"]
    assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    if not weighed:
        # as FedAvg by steps of sites that train without decay
        assert_allclose(made, plain, rtol=1e-4, atol=1e-5)
        averaged = finish(FedAvg("steps"), {"weight": start}, sent).group_model["weight"]
        bound = 1.05 * rate * decay * max(steps) * (np.abs(start).max() + 10 * rate * max(steps))
        assert np.abs(made - averaged).max() <= bound + 1e-5


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


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize(
    ("name", "dimensions"),
    [("unet", 2), ("unet", 3), ("fedgin_unet", 2), ("flames_densenet_unet", 2), ("utnet", 2), ("sd_utnet", 2)],
)
def test_the_server_knows_of_every_network_what_fedgs_sites_send(name, dimensions, norm):
    options = {} if norm is None else {"norm": norm}
    with torch.device("meta"):
        network = build_network(NetworkConfig(name=name, dimensions=dimensions, out_channels=2, options=options))
    sent = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    model = {
        key: np.zeros(0, np.float32 if tensor.is_floating_point() else np.int64)
        for key, tensor in network.state_dict().items()
    }
    assert trained_names(model) == sent
    assert sent < model.keys() or norm is None
