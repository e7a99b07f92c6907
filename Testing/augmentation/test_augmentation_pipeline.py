"""The whole of a batch's augmentation: order, labels, IPA's second view, repeatability."""

import pytest
import torch

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig, SpatialConfig
from FedSegCore.augmentation.gin import apply_gin, draw_gin
from FedSegCore.augmentation.ipa import draw_and_apply_ipa
from FedSegCore.augmentation.pipeline import Augmentation
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.augmentation.spatial import SpatialAugmentation


def batch(dimensions):
    images = torch.rand(3, 1, *[10] * dimensions, generator=torch.Generator().manual_seed(0))
    return images, (images[:, 0] * 5).to(torch.uint8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_none_gives_the_batch_back(dimensions):
    images, labels = batch(dimensions)
    got = Augmentation(AugmentationConfig(spatial=None, gin=None), dimensions)(images, labels, sample_generator(0))
    assert torch.equal(got.images, images)
    assert torch.equal(got.labels, labels)
    assert got.second_images is None


@pytest.mark.parametrize("dimensions", [2, 3])
def test_gin_alone_leaves_labels_untouched_and_is_the_previews_sample(dimensions):
    images, labels = batch(dimensions)
    got = Augmentation(AugmentationConfig(spatial=None), dimensions)(images, labels, sample_generator(4, 2))
    assert torch.equal(got.labels, labels)
    preview = draw_gin(GinConfig(), 1, 1, dimensions, sample_generator(4, 2))
    torch.testing.assert_close(got.images[:1], apply_gin(images[:1], preview))


@pytest.mark.parametrize("ipa", [False, True])
def test_space_comes_first_and_gin_after(ipa):
    images, labels = batch(3)
    gin = GinConfig(ipa=ipa)
    got = Augmentation(AugmentationConfig(gin=gin), 3)(images, labels, sample_generator(1), spacing=(1.0, 1.0, 3.0))
    generator = sample_generator(1)
    moved, moved_labels = SpatialAugmentation(SpatialConfig(), 3)(images, labels, generator, (1.0, 1.0, 3.0))
    assert torch.equal(got.labels, moved_labels)
    if ipa:
        first, second = draw_and_apply_ipa(moved, gin, generator)
        assert torch.equal(got.second_images, second)
    else:
        first = apply_gin(moved, draw_gin(gin, 1, 3, 3, generator))
        assert got.second_images is None
    assert torch.equal(got.images, first)


def test_the_batch_given_is_untouched_and_the_same_seed_gives_the_same_batch():
    images, labels = batch(2)
    before = images.clone(), labels.clone()
    config = AugmentationConfig(spatial=SpatialConfig(elastic=1.0))
    one, two = (Augmentation(config, 2)(images, labels, sample_generator(7)) for _ in range(2))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert not torch.equal(one.images, Augmentation(config, 2)(images, labels, sample_generator(8)).images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_cpus_batch():
    images, labels = batch(3)
    config = AugmentationConfig(spatial=SpatialConfig(elastic=1.0), gin=GinConfig(ipa=True))
    cpu = Augmentation(config, 3)(images, labels, sample_generator(7))
    gpu = Augmentation(config, 3)(images.cuda(), labels.cuda(), sample_generator(7))
    torch.testing.assert_close(gpu.images.cpu(), cpu.images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gpu.second_images.cpu(), cpu.second_images, atol=1e-4, rtol=1e-4)
    assert (gpu.labels.cpu() != cpu.labels).float().mean() < 1e-3


def test_a_federation_that_says_nothing_changes_half_of_the_images():
    images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(200, 8, 8, dtype=torch.uint8)
    shipped = AugmentationConfig().model_copy(update={"spatial": None})
    made = Augmentation(shipped, 2)(images, labels, sample_generator(1)).images
    changed = int((made != images).flatten(1).any(dim=1).sum())
    # within four standard deviations of 100
    assert 72 <= changed <= 128
    assert GinConfig().probability == 1.0
