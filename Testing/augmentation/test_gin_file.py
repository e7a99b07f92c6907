"""GIN's parameters on disk: what goes in comes out, and nothing else is taken for it."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.errors import BadInputError

METADATA = {"format": "fedseg-gin", "version": "1"}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("per_batch", [False, True])
def test_what_was_saved_does_the_same_to_the_bit(tmp_path, dimensions, per_batch):
    drawn = draw_gin(GinConfig(per_batch=per_batch, probability=0.5), 2, 4, dimensions, sample_generator(1))
    drawn.save(tmp_path / "gin.safetensors")
    again = GinParameters.load(tmp_path / "gin.safetensors")
    images = torch.rand(4, 2, *[7] * dimensions, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply_gin(images, again), apply_gin(images, drawn))
    assert [path.name for path in tmp_path.iterdir()] == ["gin.safetensors"]


def test_one_image_of_a_batch_can_be_saved_alone(tmp_path):
    drawn = draw_gin(GinConfig(), 1, 3, 2, sample_generator(1))
    drawn.select(torch.tensor([2])).save(tmp_path / "one.safetensors")
    images = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    alone = apply_gin(images[2:], GinParameters.load(tmp_path / "one.safetensors"))
    torch.testing.assert_close(alone[0], apply_gin(images, drawn)[2])


def test_parameters_cannot_be_reassigned():
    drawn = draw_gin(GinConfig(), 1, 1, 2, sample_generator(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawn.alpha = torch.zeros(1)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", pickle.dumps({"alpha": 1}), b"\xff" * 64])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "gin.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        GinParameters.load(path)
    assert caught.value.code == "gin.unreadable"
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_or_cut_file_is_refused(tmp_path):
    path = tmp_path / "gin.safetensors"
    with pytest.raises(BadInputError, match=r"gin\.unreadable"):
        GinParameters.load(path)
    draw_gin(GinConfig(), 1, 1, 3, sample_generator(1)).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInputError, match=r"gin\.unreadable"):
        GinParameters.load(path)


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def with_value(name, value):
    return lambda tensors: {**tensors, name: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("alpha"), "missing"),
        (without("shift.1"), "missing"),
        (without("kernel.1"), "missing"),
        (with_value("extra", torch.zeros(1)), "unknown"),
        (lambda tensors: {"alpha": tensors["alpha"], "applied": tensors["applied"]}, "layers"),
        (with_value("alpha", torch.zeros(3)), "one value per image"),
        (with_value("alpha", torch.full((2,), 1.5)), "0 to 1"),
        (with_value("alpha", torch.full((2,), float("nan"))), "0 to 1"),
        (with_value("applied", torch.ones(2)), "type"),
        (with_value("shift.0", torch.full((2, 2), float("inf"))), "finite"),
        (with_value("shift.0", torch.zeros(2, 3)), "fit each other"),
        (with_value("kernel.1", torch.zeros(2, 2, 3, 1, 1)), "channels"),
        (with_value("kernel.1", torch.zeros(2, 2, 2, 2, 2)), "even"),
        (with_value("kernel.1", torch.zeros(2, 2, 2, 11, 11)), "too long"),
        (with_value("kernel.0", torch.zeros(2, 2)), "axes"),
        (with_value("kernel.0", torch.zeros(3, 2, 1, 1, 1)), "per image"),
        (
            lambda tensors: {**tensors, "kernel.3": torch.zeros(2, 2, 2, 1, 1), "shift.3": torch.zeros(2, 2)},
            "as many channels",
        ),
    ],
)
def test_tensors_that_are_not_gins_are_refused(tmp_path, change, words):
    path = tmp_path / "gin.safetensors"
    draw_gin(GinConfig(), 1, 2, 2, sample_generator(1)).save(path)
    save_file(change(load_file(path)), path, metadata=METADATA)
    with pytest.raises(BadInputError, match=words) as caught:
        GinParameters.load(path)
    assert caught.value.code == "gin.invalid"


@pytest.mark.parametrize("metadata", [None, {"format": "fedseg-gin", "version": "2"}, {"format": "pt", "version": "1"}])
def test_another_format_is_refused(tmp_path, metadata):
    path = tmp_path / "gin.safetensors"
    draw_gin(GinConfig(), 1, 2, 2, sample_generator(1)).save(path)
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(BadInputError, match="format"):
        GinParameters.load(path)
