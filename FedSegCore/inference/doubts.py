"""What a person should look at in a result, and why.

From the result itself, and from what its release's card tells of the images it was trained on; no table of usual
values is made up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from FedSegCore.inference.certainty import Certainty
from FedSegCore.inference.segmenter import Segmentation
from FedSegCore.inference.single_pieces import LeftOut
from FedSegCore.volumes.labels import Label
from FedSegCore.volumes.usual import LEAST_VOLUME_SPREAD, Usual, is_far, log_volumes, values_at_the_edge
from FedSegCore.volumes.volume import Volume

GOOD_DICE = 0.7
"""Overlap from which on two annotations are commonly said to agree (Zijdenbos et al., IEEE TMI 1994)."""
MUCH_LEFT_OUT = 0.1
"""From this share on, voxels that were left out because they lay apart are worth a look."""
_ALTERED = ("SCT", "49755003")
"""Category of structures that need not be there, such as lesions."""


@dataclass(frozen=True)
class Doubt:
    """A reason to look at one label, or at the whole result.

    Attributes:
        label: its name; empty where the reason is the image.
        code: ``"not-found"``, ``"low-confidence"``, ``"cut-off"``, ``"in-pieces"`` or ``"unusual-volume"``;
            ``"unlike-training"`` of the image.
        reason: in words, for people.
    """

    label: str
    code: str
    reason: str


@dataclass(frozen=True)
class _Found:
    """What is known of a result, by label value or name."""

    certainty: Mapping[str, Certainty]
    edge: set[int]
    apart: Mapping[str, float]
    volumes: Mapping[int, float]
    usual: Mapping[str, Usual]


def doubts_of(result: Segmentation) -> tuple[Doubt, ...]:
    """Return what to check of a segmentation: the image first, then its labels in their order."""
    card = result.release.card
    usual = card.usual.get(result.modality)
    volumes = usual.volumes if usual is not None else {}
    found = doubts_about(result.labels, card.given_labels, result.certainty, result.left_out, volumes)
    if not result.unlike_training:
        return found
    reason = "this image looks unlike those the model was trained on, so the whole result needs a look"
    return (Doubt("", "unlike-training", reason), *found)


def doubts_about(
    labels: Volume,
    given: Sequence[Label],
    certainty: Mapping[str, Certainty],
    left_out: Sequence[LeftOut] = (),
    usual: Mapping[str, Usual] | None = None,
) -> tuple[Doubt, ...]:
    """Return what to check of a result's labels, in their order.

    Args:
        labels: (1, k, j, i) of contract values.
        given: the labels the release can give.
        certainty: label name → certainty of the labels that were found.
        left_out: what lay apart from structures that are one piece.
        usual: label name → logarithm of the volume (ml) in the training images.
    """
    found = _Found(
        certainty,
        values_at_the_edge(labels.array[0]),
        {one.label: one.share for one in left_out if one.share > MUCH_LEFT_OUT},
        log_volumes(labels.array[0], labels.grid.spacing),
        usual or {},
    )
    return tuple(doubt for label in given for doubt in _of_label(label, found))


def _of_label(label: Label, found: _Found) -> list[Doubt]:
    certainty = found.certainty.get(label.name)
    if certainty is None:
        if (label.category.scheme, label.category.code) == _ALTERED:
            return []
        return [Doubt(label.name, "not-found", "not found; look whether it is in the image")]
    doubts = []
    if certainty.expected_dice < GOOD_DICE:
        doubts.append(Doubt(label.name, "low-confidence", "the model is unsure"))
    if (apart := found.apart.get(label.name)) is not None:
        words = f"found in several pieces; the largest was kept and {apart:.0%} of its voxels left out"
        doubts.append(Doubt(label.name, "in-pieces", words))
    if label.value in found.edge:
        doubts.append(Doubt(label.name, "cut-off", "reaches the edge of the image, so the volume may not be whole"))
    if (usual := found.usual.get(label.name)) is not None and label.value in found.volumes:
        doubts += _of_volume(label, found.volumes[label.value], usual, cut=label.value in found.edge)
    return doubts


def _of_volume(label: Label, log_volume: float, usual: Usual, *, cut: bool) -> list[Doubt]:
    too_small = log_volume < usual.mean[0]
    if not is_far(log_volume, usual, LEAST_VOLUME_SPREAD) or (cut and too_small):
        return []
    reach = usual.reach() * max(usual.deviation[0], LEAST_VOLUME_SPREAD)
    low, high = (_ml(math.exp(usual.mean[0] + side * reach)) for side in (-1, 1))
    size = "smaller" if too_small else "larger"
    words = f"{size} than usual: {_ml(math.exp(log_volume))} ml; the training images let expect {low} to {high} ml"
    return [Doubt(label.name, "unusual-volume", words)]


def _ml(volume: float) -> str:
    return f"{volume:.1f}" if volume < 10.0 else f"{volume:.0f}"
