"""GIN, global intensity non-linear augmentation (Ouyang et al., IEEE TMI 2023; METHODS §1): drawing and applying.

Drawing gives a small object of plain tensors; applying is a pure function of images and that object. So a sample can
be shown, saved, and applied again to another image, and CPU and GPU give the same one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin_parameters import GinParameters

__all__ = ["GinParameters", "apply_gin", "draw_gin"]

LEAKY_SLOPE = 0.01
FROBENIUS_EPSILON = 1e-5
_SLAB_VOXELS = 2**22
"""Voxels, over all images, that a convolution sees at once: bounds memory where a library unfolds the image first."""


def draw_gin(
    config: GinConfig, channels: int, images: int, dimensions: int, generator: torch.Generator
) -> GinParameters:
    """Draw GIN's random networks and blend weights.

    Order of drawing: the kernel side of every layer, then for each image whether it is augmented, its α and its
    network's values. So the first images of a larger batch get what a smaller batch gets from the same generator state.

    Args:
        config: what to draw.
        channels: channels C of the images; the networks take and give as many.
        images: number of images N, at least 1.
        dimensions: 2 or 3.
        generator: CPU generator; advanced by the draw.

    Raises:
        ValueError: ``dimensions`` is neither 2 nor 3, or there is no image.
    """
    if dimensions not in (2, 3) or images < 1:
        raise ValueError(f"GIN draws for one or more 2-D or 3-D images, not for {images} {dimensions}-D ones")
    picks = torch.randint(len(config.kernel_sizes), (config.layers,), generator=generator)
    widths = [channels, *[config.hidden_channels] * (config.layers - 1), channels]
    shapes = [
        (out, into, *[config.kernel_sizes[int(pick)]] * dimensions)
        for into, out, pick in zip(widths[:-1], widths[1:], picks, strict=True)
    ]
    sizes = [size for shape in shapes for size in (torch.Size(shape).numel(), shape[0])]
    low, high = config.alpha
    uniform, values = [], []
    for image in range(images):
        uniform.append(torch.rand(2, generator=generator))
        if image == 0 or not config.per_batch:
            values.append(torch.randn(sum(sizes), generator=generator))
    chance, blend = torch.stack(uniform).unbind(1)
    parts = torch.split_with_sizes(torch.stack(values), sizes, dim=1)
    return GinParameters(
        kernels=tuple(part.reshape(-1, *shape) for part, shape in zip(parts[0::2], shapes, strict=True)),
        shifts=tuple(part.contiguous() for part in parts[1::2]),
        alpha=low + (high - low) * blend,
        applied=chance < config.probability,
    )


@torch.no_grad()
def apply_gin(
    images: Tensor, parameters: GinParameters, *, slab: int | None = None, check: Callable[[], None] | None = None
) -> Tensor:
    """Return the augmented images: ``y·‖x‖/(‖y‖ + 1e-5)`` with ``y = (1 - α)·x + α·network(x)``, norms per image.

    A pure function: the same input gives the same output, ``images`` is untouched, no gradient is kept. The result is
    not clipped and leaves [0, 1].

    Args:
        images: floating (N, C, j, i) or (N, C, k, j, i); half precision is computed in float32.
        parameters: drawn for as many images, channels and dimensions, on any device.
        slab: how many slices along the first spatial axis to work on at once, which bounds the memory needed and leaves
            the result the same to rounding; None chooses so that it stays within a few copies of the images.
        check: called before every slab; what it raises ends the work (``Progress.check``).

    Returns:
        Tensor like ``images``, on its device.

    Raises:
        ValueError: images and parameters do not belong together.
    """
    expected = (parameters.images, parameters.channels, parameters.dimensions + 2)
    if (*images.shape[:2], images.ndim) != expected or not images.is_floating_point():
        raise ValueError(f"images {tuple(images.shape)} {images.dtype} do not fit (N, C, axes) = {expected}")
    chosen = parameters.applied.cpu().nonzero()[:, 0]
    out = images.clone()
    if len(chosen) == 0:
        return out
    kind = torch.float64 if images.dtype == torch.float64 else torch.float32
    own = parameters.to("cpu").select(chosen).to(images.device)
    chosen = chosen.to(images.device)
    source = images[chosen].to(kind)
    with _exact_arithmetic(images.device):
        blend = _in_slabs(source, own, slab, check or (lambda: None))
    alpha = own.alpha.to(kind).reshape(-1, *[1] * (images.ndim - 1))
    blend.mul_(alpha).addcmul_(1 - alpha, source)
    blend.mul_(_norm(source) / (_norm(blend) + FROBENIUS_EPSILON))
    out[chosen] = blend.to(images.dtype)
    return out


def _norm(images: Tensor) -> Tensor:
    axes = tuple(range(1, images.ndim))
    # float64 sums: a float32 sum over 10^7 voxels is off by more than the rule's 1e-5.
    return torch.linalg.vector_norm(images, dim=axes, keepdim=True, dtype=torch.float64).to(images.dtype)


@contextmanager
def _exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 from shortening float32, so that a GPU gives the CPU's sample."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                yield
        else:
            yield


def _in_slabs(images: Tensor, parameters: GinParameters, slab: int | None, check: Callable[[], None]) -> Tensor:
    """Return the network's output, computed slab by slab along the first spatial axis.

    A slab is read with ``reach`` more slices on each side. What the padding spoils at such a cut never comes further
    than ``reach`` slices in, and is cut off; at the image's own border the padding is GIN's own.
    """
    length = images.shape[2]
    if slab is None:
        slab = max(4 * parameters.reach, _SLAB_VOXELS * length // max(1, images[:, 0].numel()), 1)
    if slab >= length:
        check()
        return _network(images, parameters)
    out = torch.empty_like(images)
    for start in range(0, length, slab):
        check()
        end = min(length, start + slab)
        first, last = max(0, start - parameters.reach), min(length, end + parameters.reach)
        part = _network(images[:, :, first:last], parameters)
        out[:, :, start:end] = part[:, :, start - first : end - first]
    return out


def _network(images: Tensor, parameters: GinParameters) -> Tensor:
    """Return h_L of (N, C, *axes): per-image networks as one grouped convolution, a shared one as a plain one."""
    groups = int(parameters.kernels[0].shape[0])
    convolve = functional.conv3d if parameters.dimensions == 3 else functional.conv2d
    hidden = images.reshape(-1 if groups == 1 else 1, images.shape[1] * groups, *images.shape[2:])
    last = len(parameters.kernels) - 1
    for layer, (kernel, shift) in enumerate(zip(parameters.kernels, parameters.shifts, strict=True)):
        padding = [side // 2 for side in kernel.shape[3:]]
        weight = kernel.flatten(0, 1).to(hidden.dtype)
        hidden = convolve(hidden, weight, shift.flatten().to(hidden.dtype), padding=padding, groups=groups)
        if layer < last:
            hidden = functional.leaky_relu_(hidden, LEAKY_SLOPE)
    return hidden.reshape(images.shape)
