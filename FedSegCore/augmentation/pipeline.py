"""A training batch's augmentation: spatial first, GIN after; standardisation follows in the trainer."""

from typing import NamedTuple

import torch
from torch import Tensor

from FedSegCore.augmentation.config import AugmentationConfig
from FedSegCore.augmentation.gin import apply_gin, draw_gin
from FedSegCore.augmentation.ipa import draw_and_apply_ipa
from FedSegCore.augmentation.spatial import SpatialAugmentation


class AugmentedBatch(NamedTuple):
    """What a network trains on.

    Attributes:
        images: like the images given; not clipped, so it may leave [0, 1].
        labels: like the labels given.
        second_images: with IPA, the other blend of the same images for the consistency loss, else None.
    """

    images: Tensor
    labels: Tensor
    second_images: Tensor | None


class Augmentation:
    """Everything a federation's configuration says of augmentation, in order.

    Args:
        config: none, spatial, GIN, or both.
        dimensions: 2 or 3.
    """

    def __init__(self, config: AugmentationConfig, dimensions: int) -> None:
        self.config = config
        self.dimensions = dimensions
        self._spatial = None if config.spatial is None else SpatialAugmentation(config.spatial, dimensions)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        spacing: tuple[float, ...] | None = None,
    ) -> AugmentedBatch:
        """Return an augmented copy of a batch.

        Args:
            images: float32 (N, C, j, i) or (N, C, k, j, i) in [0, 1], on any device.
            labels: integers (N, j, i) or (N, k, j, i); GIN leaves them alone.
            generator: CPU generator (``seeds.sample_generator``); the same state gives the same batch on any device.
            spacing: mm along (i, j) or (i, j, k), for rotations that keep shapes; None: equal.
        """
        if self._spatial is not None:
            images, labels = self._spatial(images, labels, generator, spacing)
        gin = self.config.gin
        if gin is None:
            return AugmentedBatch(images, labels, None)
        if gin.ipa:
            first, second = draw_and_apply_ipa(images, gin, generator)
            return AugmentedBatch(first, labels, second)
        parameters = draw_gin(gin, images.shape[1], images.shape[0], self.dimensions, generator)
        return AugmentedBatch(apply_gin(images, parameters), labels, None)
