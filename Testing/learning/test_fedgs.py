"""FedGS at the site: the weights stay AdamW's, the accumulator is what the formula says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from FedSegCore.learning.config import FedGsConfig
from FedSegCore.learning.fedgs import LesionSizes, SizeWeights, UpdateAccumulator, size_weights
from FedSegCore.learning.results import FEDGS_PREFIX
from FedSegCore.learning.sampling import Batch

OPTIONS = {"lr": 3e-3, "weight_decay": 0.05}


def small_network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.InstanceNorm2d(4, affine=True), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)
    )


def train(network, steps, *, config=None, etas=None, fused=False, decay=0.05, layout=torch.preserve_format):
    """Train ``steps`` steps on fixed random data; return the accumulator (None without FedGS)."""
    network.to(memory_format=layout)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=decay, fused=fused)
    accumulator = UpdateAccumulator(optimiser, network, config) if config is not None else None
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        optimiser.zero_grad(set_to_none=True)
        images = torch.randn(2, 1, 8, 8, generator=generator)
        network(images).square().mean().backward()
        optimiser.step()
        if accumulator is not None:
            accumulator.add(etas[number])
    return accumulator


ETAS = tuple(1.0 + 2.0 * (number % 5) / 5 for number in range(20))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [torch.preserve_format, torch.channels_last])
def test_local_training_is_adamws_to_the_bit(fused, layout):
    plain, watched = small_network(), small_network()
    train(plain, 20, fused=fused, layout=layout)
    train(watched, 20, config=FedGsConfig(), etas=ETAS, fused=fused, layout=layout)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name


@pytest.mark.parametrize("fused", [False, True])
def test_accumulator_by_the_formula(fused):
    """One parameter with known gradients; AdamW's step written out in NumPy in double precision."""
    gradients = np.array([0.5, -0.2, 0.9, 0.0, -1.5])
    parameter = torch.nn.Linear(1, 1, bias=False)
    optimiser = torch.optim.AdamW(parameter.parameters(), lr=0.01, weight_decay=0.3, fused=fused)
    accumulator = UpdateAccumulator(optimiser, parameter, FedGsConfig())
    first = second = total = 0.0
    for t, gradient in enumerate(gradients, 1):
        parameter.weight.grad = torch.full((1, 1), float(gradient))
        optimiser.step()
        accumulator.add(ETAS[t])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        total += ETAS[t] * 0.01 * (first / (1 - 0.9**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
    found = accumulator.result()
    assert list(found) == ["fedgs/weight"]
    assert found["fedgs/weight"].dtype == np.float32
    assert found["fedgs/weight"].item() == pytest.approx(total, rel=1e-5)


def test_eta_one_without_decay_is_the_way_the_weights_went():
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    accumulator = train(network, 20, config=FedGsConfig(), etas=(1.0,) * 20, decay=0.0)
    for name, tensor in network.state_dict().items():
        moved = (before[name] - tensor).numpy()
        np.testing.assert_allclose(accumulator.result()[FEDGS_PREFIX + name], moved, atol=1e-6)


def test_decay_never_enters():
    """After one step d = lr · g/(|g| + ε), whatever the decay did to the weights."""
    results = [train(small_network(), 1, config=FedGsConfig(), etas=(1.0,), decay=d).result() for d in (0.0, 0.9)]
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])
        assert np.abs(array).max() <= 3e-3 * (1 + 1e-6)


def test_normalise_and_constant_eta():
    def total(etas=ETAS, **options):
        return train(small_network(), 20, config=FedGsConfig(**options), etas=etas).result()

    mean = float(np.mean(ETAS))
    plain, ones = total(), total(etas=(1.0,) * 20)
    normalised, constant, both = (
        total(normalise=True),
        total(constant_eta=True),
        total(normalise=True, constant_eta=True),
    )
    for name in plain:
        np.testing.assert_allclose(normalised[name], plain[name] / mean, rtol=1e-6)
        np.testing.assert_allclose(constant[name], ones[name] * mean, rtol=1e-6)
        np.testing.assert_allclose(both[name], ones[name], rtol=1e-6)
    assert any(np.abs(plain[name] - constant[name]).max() > 1e-4 for name in plain)


def test_parameters_that_did_not_move_add_nothing():
    network = small_network()
    optimiser = torch.optim.AdamW(network.parameters(), **OPTIONS)
    accumulator = UpdateAccumulator(optimiser, network, FedGsConfig())
    network(torch.ones(1, 1, 8, 8)).sum().backward()
    network[0].weight.grad = None
    optimiser.step()
    accumulator.add(2.0)
    assert (accumulator.result()["fedgs/0.weight"] == 0).all()
    assert (accumulator.result()["fedgs/3.weight"] != 0).any()
    assert accumulator.etas == (2.0,)


def test_no_step_gives_zeros():
    network = small_network()
    optimiser = torch.optim.AdamW(network.parameters())
    result = UpdateAccumulator(optimiser, network, FedGsConfig(normalise=True)).result()
    assert result.keys() == {FEDGS_PREFIX + name for name, _ in network.named_parameters()}
    assert all((array == 0).all() for array in result.values())


@pytest.mark.parametrize("kind", ["sgd", "amsgrad", "adam"])
def test_other_optimisers_are_refused(kind):
    network = small_network()
    optimiser = {
        "sgd": lambda p: torch.optim.SGD(p),
        "amsgrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
        "adam": lambda p: torch.optim.Adam(p),
    }[kind](network.parameters())
    with pytest.raises(ValueError, match="AdamW"):
        UpdateAccumulator(optimiser, network, FedGsConfig())


def test_eta_goes_by_the_whole_lesion_of_the_image_a_patch_was_cut_from():
    """Units of a/A = 1/200, 1/4 and 0; l = 100, τ = 150. Lesions are labels 1 and 3."""
    sizes = LesionSizes((1, 3), SizeWeights(100.0, 150.0), np.array([1 / 200, 1 / 4, 0.0]))
    small = math.tanh((math.log(200) / math.log(100)) ** 2)

    def eta(*patches):
        labels = torch.zeros(len(patches), 8, 8, dtype=torch.uint8)
        for number, (_, value, voxels) in enumerate(patches):
            labels[number].view(-1)[:voxels] = value
        annotated = ((1, 2, 3),) * len(patches)
        return sizes.eta(Batch(torch.zeros(len(patches), 1, 8, 8), labels, annotated, tuple(p[0] for p in patches)))

    # a patch full of the small lesion counts as small, one that grazes the large one does not
    assert eta((0, 1, 64)) == pytest.approx(1 + 2 * small)
    assert eta((1, 3, 1)) == 1.0
    # it counts where the patch shows any of it; another label is no lesion
    assert eta((0, 1, 0), (0, 2, 9), (0, 3, 1), (2, 0, 0)) == pytest.approx(1 + 2 / 4 * small)


def test_delta_and_eta_by_hand():
    """l = 100, τ = 150: 1/1000 is small, 1/150 just, 1/149 is not; an empty mask counts 0."""
    weights = SizeWeights(100.0, 150.0)
    areas = torch.tensor([1 / 1000, 1 / 150, 1 / 149, 0.0], dtype=torch.float64)
    expected = [math.tanh(1.5**2), math.tanh((math.log(150) / math.log(100)) ** 2), 0.0, 0.0]
    assert weights.delta(areas).tolist() == pytest.approx(expected)
    assert weights.eta(areas) == pytest.approx(1 + 2 / 4 * sum(expected))
    assert weights.eta(areas[2:]) == 1.0


@settings(max_examples=50, deadline=None)
@given(
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    base=st.floats(1.1, 1e4),
    threshold=st.floats(1.1, 1e4),
)
def test_eta_stays_between_one_and_three(shares, base, threshold):
    assert 1.0 <= SizeWeights(base, threshold).eta(torch.tensor(shares, dtype=torch.float64)) <= 3.0


def test_automatic_weights_call_the_smallest_third_small():
    inverse = np.array([20, 30, 40, 60, 80, 100, 200, 400, 800], float)
    chosen = size_weights(FedGsConfig(), [*(1 / inverse), 0.0, 0.0])
    assert chosen.threshold == pytest.approx(100 + (200 - 100) / 3)  # two thirds of the way along nine values
    assert chosen.log_base == chosen.threshold
    assert (chosen.delta(torch.tensor(1 / inverse)) > 0).sum() == 3
    assert float(chosen.delta(torch.tensor([1 / chosen.threshold]).double() * (1 - 1e-12))) == pytest.approx(
        math.tanh(1.0), rel=1e-6
    )


def test_what_is_configured_is_kept():
    assert size_weights(FedGsConfig(log_base=100, threshold=150), [0.5]) == SizeWeights(100, 150)
    assert size_weights(FedGsConfig(threshold=150), [0.5]) == SizeWeights(150, 150)
    assert size_weights(FedGsConfig(), [0.5, 0.9]) == SizeWeights(10, 10)
    assert size_weights(FedGsConfig(), []) == SizeWeights(10, 10)
