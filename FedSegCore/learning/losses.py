"""Losses by name: the default, and those of the FedGIN, FLAMES and FedGS papers (METHODS §2-4).

All take logits of K + 1 channels (background first), label maps, and which labels are annotated, and give a scalar.
The papers write theirs for a single sigmoid output. Here label c gets the logit z_c - z_0, so that for K = 1 the
sigmoid equals the softmax probability of the label, and taking the highest channel at inference means the same as
"the most probable label, if above one half" for every loss.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.nn import functional

from FedSegCore.common.errors import BadInputError

AnnotatedLabels = torch.Tensor | tuple[int, ...]
"""Boolean (N, K): label c + 1 of image n is annotated; or the annotated contract values of the whole batch."""

SegmentationLoss = Callable[[torch.Tensor, torch.Tensor, AnnotatedLabels], torch.Tensor]
"""``loss(logits (N, K + 1, ...) float, target (N, ...) uint8 contract values, annotated) -> scalar``.

Raises BadInputError ``training.not-finite`` where the result is NaN or infinite, ``training.labels`` for a target
above K, ``training.shapes`` for shapes that do not belong together.
"""

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LossOptions(BaseModel):
    """A loss without options; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DiceCeOptions(LossOptions):
    """Weights of the two parts of ``"dice_ce"``."""

    dice_weight: Weight = 1.0
    ce_weight: Weight = 1.0


class FlamesOptions(LossOptions):
    """``dice_share`` is a of a·Dice + (1 - a)·focal: 0.7 in FLAMES's loss file, 0.3 in its client."""

    dice_share: Share = 0.7


def merged_log_probabilities(logits: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Return log probabilities in which everything not annotated counts as background (marginal loss).

    Channel 0 becomes log(p_0 + Σ p_c over labels not annotated); those labels' own channels become -inf. A voxel that
    a site calls background may well be an organ the site does not annotate: this asks only that the two together be
    probable, so it never pushes such a label towards 0 in favour of background (Shi et al., Medical Image Analysis
    2021, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation").

    Args:
        logits: (N, K + 1, ...).
        annotated: boolean (N, K).
    """
    logs = functional.log_softmax(logits, dim=1)
    shape = (*annotated.shape, *(1,) * (logits.ndim - 2))
    kept = annotated.reshape(shape)
    merged = torch.cat([torch.ones_like(kept[:, :1]), ~kept], dim=1)
    background = logs.masked_fill(~merged, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logs[:, 1:].masked_fill(~kept, -torch.inf)], dim=1)


def dice_ce(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor, dice_weight: float, ce_weight: float
) -> torch.Tensor:
    """Return w_d · (1 - mean Dice) + w_c · cross entropy, both on merged probabilities.

    Dice of label c is 2 Σ p g / (Σ p + Σ g) over the voxels of all images that annotate c; the mean is over the
    labels that occur in the batch, because a label that does not occur has a Dice of 0 whatever the network does
    and leaves only noise. Cross entropy, over all voxels, is what pushes such a label down.
    """
    logs = merged_log_probabilities(logits, annotated)
    cross_entropy = functional.nll_loss(logs, target)
    return ce_weight * cross_entropy + dice_weight * _present_dice(logs.exp(), target, annotated)


def sd_utnet(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Return 10 · (1 - mean Dice) on merged softmax probabilities: SD-UTNet's segmentation term.

    The other terms, 0.01·KL + L1(z̃, z) + L1(x̂, x), need the network's inner results: SD-UTNet gives their sum with
    its logits (``FedSegCore.networks.registry.forward_for_training``), to be added to this.
    """
    return 10.0 * _present_dice(merged_log_probabilities(logits, annotated).exp(), target, annotated)


def fedgin(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Return 0.5 · focal + 0.5 · Dice.

    Per voxel and label, l = BCE with its positive term times 3, focal = mean of 0.25 (1 - e^-l)² l; Dice loss =
    1 - (2 Σ p g + 1e-5) / (Σ p + Σ g + 1e-5) per image and label, averaged. Labels not annotated take no part.
    """
    scores, truth, kept = _per_label(logits, target, annotated)
    triple = torch.full((), 3.0, dtype=scores.dtype, device=scores.device)
    entropy = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none", pos_weight=triple)
    focal = _masked_mean((0.25 * (1.0 - torch.exp(-entropy)) ** 2 * entropy).mean(dim=2), kept)
    probability = scores.sigmoid()
    overlap = (2.0 * (probability * truth).sum(dim=2) + 1e-5) / (probability.sum(dim=2) + truth.sum(dim=2) + 1e-5)
    return 0.5 * focal + 0.5 * _masked_mean(1.0 - overlap, kept)


def flames(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor, dice_share: float) -> torch.Tensor:
    """Return a · Dice + (1 - a) · focal.

    b = BCE averaged over batch, labels and voxels, focal = 0.8 (1 - e^-b)² b; Dice loss = 1 - (2 Σ p g + 1) /
    (Σ p + Σ g + 1) with sums over the whole batch, per label, averaged over labels. Labels not annotated take no part.
    """
    scores, truth, kept = _per_label(logits, target, annotated)
    entropy = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    mean = _masked_mean(entropy.mean(dim=2), kept)
    focal = 0.8 * (1.0 - torch.exp(-mean)) ** 2 * mean
    weights = kept.to(scores.dtype)[..., None]
    probability = scores.sigmoid() * weights
    both, total = (probability * truth).sum(dim=(0, 2)), (probability + truth * weights).sum(dim=(0, 2))
    dice = _masked_mean(1.0 - (2.0 * both + 1.0) / (total + 1.0), kept.any(dim=0))
    return dice_share * dice + (1.0 - dice_share) * focal


_LOSSES: Mapping[str, tuple[type[LossOptions], Callable[..., torch.Tensor]]] = {
    "dice_ce": (DiceCeOptions, dice_ce),
    "fedgin": (LossOptions, fedgin),
    "flames": (FlamesOptions, flames),
    "sd_utnet": (LossOptions, sd_utnet),
}


def loss_names() -> tuple[str, ...]:
    """Return the names that ``TrainingConfig.loss`` may have."""
    return tuple(_LOSSES)


def build_loss(name: str, options: Mapping[str, Any] | None = None) -> SegmentationLoss:
    """Return the loss called ``name``.

    Raises:
        BadInputError: ``loss.unknown`` or ``loss.options``.
    """
    if name not in _LOSSES:
        raise BadInputError("loss.unknown", f"There is no loss called {name!r}.", f"Choose one of {list(_LOSSES)}.")
    kind, formula = _LOSSES[name]
    try:
        parameters = kind.model_validate(dict(options or {})).model_dump()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadInputError("loss.options", f"Loss {name!r}: {problems}.", "Correct the loss's options.") from error

    def loss(logits: torch.Tensor, target: torch.Tensor, annotated: AnnotatedLabels) -> torch.Tensor:
        mask = annotated_mask(annotated, logits)
        full = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums over voxels overflow in half
        value = formula(full, _checked_target(logits, target, mask), mask, **parameters)
        if not bool(torch.isfinite(value)):
            raise BadInputError(
                "training.not-finite",
                "The training loss is not a finite number.",
                "Lower the learning rate, and check the images for values that are not numbers.",
            )
        return value

    return loss


def annotated_mask(annotated: AnnotatedLabels, logits: torch.Tensor) -> torch.Tensor:
    """Return which labels are annotated as boolean (N, K) on the logits' device."""
    images, labels = logits.shape[0], logits.shape[1] - 1
    if isinstance(annotated, torch.Tensor):
        mask = annotated.to(logits.device, torch.bool)
    else:
        mask = torch.tensor([value in annotated for value in range(1, labels + 1)], device=logits.device)
        mask = mask.expand(images, labels)
    if mask.shape != (images, labels):
        raise BadInputError(
            "training.shapes",
            f"Annotated labels have shape {tuple(mask.shape)}, not {(images, labels)}.",
            "Give one row per image and one column per label.",
        )
    return mask


def _checked_target(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Return int64 labels in which what is not annotated is background."""
    if target.shape != (logits.shape[0], *logits.shape[2:]):
        raise BadInputError(
            "training.shapes",
            f"Labels have shape {tuple(target.shape)}, the network gave {tuple(logits.shape)}.",
            "Give one label map per image, of the image's size.",
        )
    values = target.long()
    if int(values.max()) >= logits.shape[1] or int(values.min()) < 0:
        raise BadInputError(
            "training.labels",
            f"A label map holds a value outside 0 to {logits.shape[1] - 1}.",
            "Map the site's numbers to the label contract.",
        )
    known = torch.cat([torch.ones_like(annotated[:, :1]), annotated], dim=1)
    return values * known.gather(1, values.flatten(1)).reshape(values.shape)


def _present_dice(probabilities: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    labels = annotated.shape[1]
    truth = functional.one_hot(target, labels + 1).movedim(-1, 1)[:, 1:].flatten(2)
    predicted = probabilities[:, 1:].flatten(2)
    # Channels of labels that are not annotated are 0 in both, so they add nothing to a sum over the batch.
    both = (predicted * truth).sum(dim=(0, 2))
    total = predicted.sum(dim=(0, 2)) + truth.sum(dim=(0, 2))
    present = truth.sum(dim=(0, 2)) > 0
    return _masked_mean(1.0 - 2.0 * both / total.clamp_min(1e-5), present)


def _per_label(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return sigmoid logits z_c - z_0 and truths, both (N, K, voxels), and the mask (N, K)."""
    scores = (logits[:, 1:] - logits[:, :1]).flatten(2)
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
    return scores, truth.to(scores.dtype), annotated


def _masked_mean(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` where ``kept``; 0 (with a gradient of 0) where nothing is."""
    return torch.where(kept, values, 0.0).sum() / kept.sum().clamp_min(1)
