"""Networks by name: sizes, shapes, options, and inputs that do not fit the pooling."""

import pytest
import torch

from FedSegCore.common.errors import BadInputError
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.padding import forward_padded, padded_size
from FedSegCore.networks.registry import build_network, parameter_count, size_multiple


def config(name="unet", dimensions=2, **fields):
    return NetworkConfig(name=name, dimensions=dimensions, **fields)


def test_default_unet_sizes():
    assert parameter_count(build_network(config(dimensions=3, out_channels=6))) == pytest.approx(5e6, rel=0.05)
    assert parameter_count(build_network(config(dimensions=2, out_channels=6))) == pytest.approx(0.4e6, rel=0.05)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("dimensions", "size"), [(3, (5, 17, 30)), (3, (16, 16, 16)), (3, (1, 20, 20)), (2, (17, 250)), (2, (1, 1))]
)
def test_unet_takes_any_size(dimensions, size, training):
    network = build_network(config(dimensions=dimensions, in_channels=3, out_channels=4)).train(training)
    out = network(torch.rand(2, 3, *size))
    assert out.shape == (2, 4, *size)
    assert torch.isfinite(out).all()


def test_padding_changes_nothing_where_the_size_fits():
    torch.manual_seed(0)
    network = build_network(config()).eval()
    image = torch.rand(1, 1, 32, 40)
    inner = super(type(network), network).forward(image)
    assert torch.equal(network(image), inner)


def test_padded_size():
    assert padded_size((17, 32), (8, 8)) == (24, 32)
    assert padded_size((8, 8), (8, 8)) == (8, 16)
    assert padded_size((3, 5), (1, 1)) == (3, 5)


def test_padding_repeats_the_edge_at_the_far_end_and_is_cut_off():
    seen = []

    def forward(images):
        seen.append(images)
        return images * 2

    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    out = forward_padded(forward, image, (4, 4))
    assert torch.equal(out, image * 2)
    assert seen[0][0, 0].tolist() == [[0, 1, 2, 2, 2, 2, 2, 2]] + [[3, 4, 5, 5, 5, 5, 5, 5]] * 3


def test_thick_slices_are_not_pooled_along_k_too_early():
    thick = config(dimensions=3, options={"channels": [4, 8, 8], "strides": [[1, 2, 2], 2]})
    assert size_multiple(thick) == (2, 4, 4)
    sizes = []
    network = build_network(thick).eval()
    first = next(part for part in network.modules() if isinstance(part, torch.nn.Conv3d) and part.stride != (1, 1, 1))
    first.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[2:])))
    assert network(torch.rand(1, 1, 6, 16, 16)).shape == (1, 2, 6, 16, 16)
    assert sizes == [(6, 8, 8)]


def test_size_multiple_of_the_defaults():
    assert size_multiple(config(dimensions=3)) == (16, 16, 16)
    assert size_multiple(config(dimensions=2)) == (8, 8)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "nnunet"}, "network.unknown"),
        ({"options": {"chanels": [8, 16]}}, "network.options"),
        ({"options": {"channels": [8, 16], "strides": [2, 2]}}, "network.options"),
        ({"options": {"strides": [2]}}, "network.options"),
        ({"options": {"channels": [8, 16], "strides": [[1, 2, 2]]}}, "network.options"),
        ({"options": {"dropout": 1.5}}, "network.options"),
        ({"options": {"norm": "layer"}}, "network.options"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, code):
    for action in (build_network, size_multiple):
        with pytest.raises(BadInputError) as caught:
            action(config(**fields))
        assert caught.value.code == code


def test_only_batch_norm_keeps_statistics():
    assert not any("running" in name for name in build_network(config()).state_dict())
    batch = build_network(config(options={"norm": "batch", "channels": [4, 8], "residual_units": 0}))
    assert any(name.endswith("running_mean") for name in batch.state_dict())


def test_same_seed_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_network(config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
