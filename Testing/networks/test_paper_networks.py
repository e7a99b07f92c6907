"""The papers' networks: their parameter counts, their parts against plain formulas, pretrained weights."""

import math
import time

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet121
from safetensors.torch import save_file
from torch.nn import functional

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.initial_model import check_pretrained, initial_model
from FedSegCore.federation.presets import read_preset
from FedSegCore.networks.attention import SIDE, RelativeBias, attend
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.flames_unet import FlamesDenseNetUnet, FlamesUnetOptions, load_densenet_weights
from FedSegCore.networks.registry import (
    build_network,
    forward_for_training,
    parameter_count,
    size_multiple,
)
from FedSegCore.networks.sd_utnet import kl_to_standard_normal

PAPERS = ("fedgin_unet", "flames_densenet_unet", "utnet", "sd_utnet")


def config(name, inputs=1, outputs=2, norm="instance"):
    return NetworkConfig(name=name, dimensions=2, in_channels=inputs, out_channels=outputs, options={"norm": norm})


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_parameter_counts_of_the_papers(norm):
    def count(name, inputs, outputs):
        return parameter_count(build_network(config(name, inputs, outputs, norm)))

    assert count("utnet", 3, 2) == 14_418_788
    assert count("sd_utnet", 3, 2) == 18_836_223
    # These two have a single sigmoid output; ours has background too: one more row of the last 1x1 convolution.
    assert count("flames_densenet_unet", 1, 2) - (64 + 1) == 31_264_705
    assert round((count("fedgin_unet", 1, 2) - (32 + 1)) / 1e6, 2) == 1.93


def test_flames_with_the_papers_single_output():
    assert parameter_count(FlamesDenseNetUnet(1, 1, FlamesUnetOptions(norm="batch"))) == 31_264_705


@pytest.mark.parametrize("name", PAPERS)
def test_any_size_and_every_parameter_learns(name):
    torch.manual_seed(0)
    network = build_network(config(name, inputs=3, outputs=4)).train()
    logits, own = forward_for_training(network, torch.randn(2, 3, 50, 35))
    assert logits.shape == (2, 4, 50, 35)
    assert own.shape == ()
    assert (float(own.detach()) > 0) == (name == "sd_utnet")
    (logits.square().mean() + own).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    network.eval()
    image = torch.randn(1, 3, 50, 35)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("name", PAPERS)
def test_padding_is_where_the_size_does_not_fit(name):
    """An image grown by its own edge to the multiple gives the same logits there."""
    torch.manual_seed(1)
    network = build_network(config(name)).eval()
    step, _ = size_multiple(config(name))
    image = torch.randn(1, 1, 2 * step - 3, 2 * step)
    grown = functional.pad(image, (0, 0, 0, 3), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(grown)[:, :, : 2 * step - 3], rtol=1e-4, atol=1e-5)


def test_three_dimensions_are_refused():
    for name in PAPERS:
        with pytest.raises(BadInputError) as caught:
            build_network(NetworkConfig(name=name, dimensions=3))
        assert caught.value.code == "network.dimensions"


@pytest.mark.parametrize("name", PAPERS)
def test_default_keeps_no_statistics(name):
    assert not any("running" in key for key in build_network(config(name)).state_dict())


def test_relative_bias_by_hand():
    bias = RelativeBias(2)
    found = bias(16, 24)
    assert found.shape == (2, 16 * 24, SIDE * SIDE)
    table = bias.table.reshape(15, 15, 2)
    for y, x, ky, kx in ((0, 0, 0, 0), (15, 23, 0, 7), (7, 10, 5, 2)):
        expected = table[y // 2 - ky + 7, x // 3 - kx + 7]
        assert torch.equal(found[:, y * 24 + x, ky * SIDE + kx], expected)


def test_attention_by_formula():
    torch.manual_seed(2)
    heads, width = 2, 3
    query, key, value = torch.randn(3, 2, heads * width, SIDE, SIDE).double()
    bias = RelativeBias(heads).double()
    found = attend(query, key, value, heads, bias)
    table = bias(SIDE, SIDE)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        q, k, v = (maps[1, own].reshape(width, -1).T for maps in (query, key, value))
        weights = torch.softmax((q @ k.T + table[head]) / math.sqrt(width), dim=1)
        torch.testing.assert_close(found[1, own].reshape(width, -1).T, weights @ v)


def test_kl_by_hand():
    mean = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    expected = (0.5 * 1.0 + 0.5 * (4.0 + 3.0 - 1.0 - math.log(3.0))) / 2
    assert float(kl_to_standard_normal(mean, log_variance)) == pytest.approx(expected)


def test_sd_utnets_own_loss_by_its_parts():
    torch.manual_seed(3)
    network = build_network(config("sd_utnet")).eval()
    image = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        torch.manual_seed(4)
        logits, loss = network.forward_with_loss(image)
        torch.manual_seed(4)
        mean, log_variance = network.modality(image)
        style = mean + torch.randn(2, 8) * torch.exp(log_variance / 2)
        drawn = network.decoder(torch.tanh(network.anatomy(image)), style)
        again = network.modality(drawn)[0]
        kl = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum() / 2
        expected = 0.01 * kl + (again - style).abs().mean() + (drawn - image).abs().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert drawn.abs().max() < 1
    torch.testing.assert_close(logits, network(image))


@pytest.mark.parametrize("name", PAPERS)
def test_a_single_image_can_be_trained_on_with_batch_norm(name):
    """A batch of one, or what memory leaves of a larger one; SD-UTNet normalises 32 numbers over the batch."""
    torch.manual_seed(7)
    network = build_network(config(name, norm="batch")).train()
    logits, own = forward_for_training(network, torch.randn(1, 1, 32, 32))
    (logits.square().mean() + own).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_sd_utnets_norm_over_the_batch_is_batch_norm_from_two_images_on():
    torch.manual_seed(8)
    squeeze = build_network(config("sd_utnet", norm="batch")).train().modality.squeeze[1]
    plain = torch.nn.BatchNorm1d(32)
    plain.load_state_dict(squeeze.state_dict())
    for images in (2, 3, 5):
        vectors = torch.randn(images, 32)
        torch.testing.assert_close(squeeze(vectors), plain(vectors))
    torch.testing.assert_close(squeeze.running_var, plain.running_var)
    alone = torch.randn(1, 32)
    torch.testing.assert_close(squeeze(alone), plain.eval()(alone))


def test_pretrained_densenet_weights(tmp_path):
    torch.manual_seed(5)
    donor = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
    state = {name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    torchvision_names = {name.replace(".layers.", "."): tensor for name, tensor in state.items()}
    for number, names in enumerate((state, torchvision_names)):
        file = tmp_path / f"{number}.safetensors"
        save_file(names, file)
        for norm, per_norm in (("batch", 4), ("instance", 2)):
            network = FlamesDenseNetUnet(1, 2, FlamesUnetOptions(norm=norm))
            # Convolution, 6 layers of 2 convolutions and 2 norms, transition of 1 and 1.
            assert load_densenet_weights(network, file) == 1 + 6 * (2 + 2 * per_norm) + 1 + per_norm
            own = network.state_dict()
            key = "denseblock1.denselayer3.layers.conv2.weight"
            assert torch.equal(own[key], state[f"features.{key}"])
            assert torch.equal(own["transition1.norm.bias"], state["features.transition1.norm.bias"])
            expected = state["features.conv0.weight"].sum(dim=1, keepdim=True)
            assert torch.equal(own["conv0.weight"], expected)


def test_a_groups_first_model_begins_with_pretrained_weights_where_its_network_has_them(tmp_path):
    torch.manual_seed(6)
    donor = {name: t.contiguous() for name, t in DenseNet121(2, 3, 1).state_dict().items()}
    file = tmp_path / "densenet121.safetensors"
    save_file(donor, file)
    flames, other = config("flames_densenet_unet"), config("fedgin_unet")
    plain, begun = initial_model(flames, 3), initial_model(flames, 3, file)
    taken = {name for name in plain if not np.array_equal(plain[name], begun[name])}
    assert all(name.startswith(("conv0.weight", "denseblock1.", "transition1.")) for name in taken)
    key = "transition1.conv.weight"
    np.testing.assert_array_equal(begun[key], donor[f"features.{key}"])
    for name, array in initial_model(other, 3).items():
        np.testing.assert_array_equal(array, initial_model(other, 3, file)[name])

    preset = read_preset("flames")
    check_pretrained(preset, file)
    for federation, path, code in (
        (read_preset("fedgin"), file, "network.pretrained-unused"),
        (preset, tmp_path / "absent.safetensors", "network.pretrained"),
    ):
        with pytest.raises(BadInputError) as caught:
            check_pretrained(federation, path)
        assert caught.value.code == code


def test_pretrained_weights_that_do_not_fit(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not tensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    network = FlamesDenseNetUnet(1, 2, FlamesUnetOptions())
    for file in (broken, other, tmp_path / "absent.safetensors"):
        with pytest.raises(BadInputError) as caught:
            load_densenet_weights(network, file)
        assert caught.value.code == "network.pretrained"


def test_default_networks_are_quick_enough_for_one_core():
    """A training step of the default 2-D network on eight 256x256 slices; 0.45 s where measured, 10 s allowed."""
    network = build_network(NetworkConfig(dimensions=2))
    start = time.perf_counter()
    network(torch.rand(8, 1, 256, 256)).mean().backward()
    assert time.perf_counter() - start < 10.0
