"""IPA, interventional pseudo-correlation augmentation (Ouyang et al., IEEE TMI 2023; METHODS §1).

Two GIN samples of an image are blended by a smooth random map, so that intensities of neighbouring structures stop
going together; a loss asks for the same prediction on both blends.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from FedSegCore.augmentation.bspline import DEGREE, smooth_field
from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import apply_gin, draw_gin

INTERVALS = 4
"""The control grid's distance is a quarter of the image's side."""


def draw_blend_map(images: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return smooth random maps, float32 (N, 1, *shape) on the CPU, each from exactly 0 to 1.

    Control points are drawn from N(0, 1) and scaled to unit length together, as in the paper's code; quadratic
    B-spline; exp; min-max per image. A single-voxel image, where min-max has no meaning, gets 0.5.

    Args:
        images: number of images N.
        shape: voxels along (k, j, i) or (j, i).
        generator: CPU generator; advanced by the draw.
    """
    counts = [INTERVALS + DEGREE] * len(shape)
    control = torch.stack([torch.randn(counts, generator=generator) for _ in range(images)])
    control = control / torch.linalg.vector_norm(control.flatten(1), dim=1).reshape(-1, *[1] * len(shape))
    field = smooth_field(control.unsqueeze(1), shape).exp()
    axes = tuple(range(1, field.ndim))
    low, high = field.amin(axes, keepdim=True), field.amax(axes, keepdim=True)
    return torch.where(high > low, (field - low) / (high - low), 0.5)


@torch.no_grad()
def draw_and_apply_ipa(images: Tensor, config: GinConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the two blends ``g1·b + g2·(1 - b)`` and ``g1·(1 - b) + g2·b``, each like ``images``.

    ``g1`` is the sample that GIN alone would have drawn from the same generator state. An image that ``g1`` leaves as
    it is (by ``config.probability``) is left as it is in both.

    Args:
        images: floating (N, C, j, i) or (N, C, k, j, i).
        config: what to draw.
        generator: CPU generator; advanced by the draw.
    """
    count, channels, *shape = images.shape
    first = draw_gin(config, channels, count, len(shape), generator)
    second = replace(draw_gin(config, channels, count, len(shape), generator), applied=first.applied)
    blend = draw_blend_map(count, tuple(shape), generator).to(images)
    one, two = apply_gin(images, first), apply_gin(images, second)
    return torch.lerp(two, one, blend), torch.lerp(one, two, blend)


def consistency_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the disagreement of the predictions on the two blends, 0 where they are equal.

    The mean over all elements, as in the paper's code, of ``p·(log p - log q)`` with q each prediction and p their
    average; no true label is involved.

    Args:
        first: logits (N, K + 1, ...) on the first blend.
        second: logits of the same shape on the second.

    Returns:
        Scalar tensor, 0 or more, with gradient to both.
    """
    logs = torch.stack([first.log_softmax(1), second.log_softmax(1)])
    mean = logs.exp().mean(0, keepdim=True).expand_as(logs)
    return functional.kl_div(logs, mean, reduction="none").mean()
