"""From a finished run to signed releases: one per group."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.outcome import FederationOutcome, GroupResult
from FedSegCore.models.card import LabelScore, SiteSummary, TrainingUsual
from FedSegCore.models.release import check_release, publish_release
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.usual import CohortUsual, Usual

Metric = Literal["dice", "iou", "surface_distance_mm"]

_METRICS: tuple[Metric, ...] = get_args(Metric)
_NAME_LENGTH = 47


def publish_outcome(outcome: FederationOutcome, releases: Path, key: Ed25519PrivateKey) -> dict[str, Path]:
    """Publish the model of every group that a site trained, all or none, and return group → release folder.

    The card's scores are those of the last round in which a site sent any: of the models as sites received them,
    before that round's training, over their validation cases. A release is called ``<federation>-<group>``.

    Args:
        outcome: a run's result.
        releases: the folder of releases.
        key: the coordinator's private key.

    Raises:
        BadInputError: ``release.nothing-to-publish``: no site's answer made a model; what ``publish_release`` raises.
    """
    trained = {name: group for name, group in outcome.groups.items() if group.answering()}
    if not trained:
        raise BadInputError(
            "release.nothing-to-publish", "No group has closed a round yet.", "Let the run finish a round first."
        )
    # all are checked first: else every retry would publish the others anew
    cards = {name: card_fields(outcome.config, group) for name, group in trained.items()}
    for name, group in trained.items():
        check_release(cards[name], group.model)
    return {name: publish_release(releases, cards[name], group.model, key) for name, group in trained.items()}


def card_fields(config: FederationConfig, group: GroupResult) -> dict[str, Any]:
    """Return the model card's fields of a group's release, but for version, date, software and hash."""
    modalities = _modalities(config, group)
    return {
        "name": f"{config.name[:_NAME_LENGTH]}-{group.group}",
        "modalities": {modality: config.preprocessing_of(modality) for modality in modalities},
        "contract": config.contract,
        "network": config.network_of(group.group, modalities[0]),
        "trained_labels": tuple(config.contract.labels[value - 1].name for value in group.trained_values()) or None,
        "patch_size": config.training_of(group.group).patch_size,
        "federation": config.name,
        "rule": config.aggregation.rule,
        "rounds": group.rounds,
        "sites": tuple(
            SiteSummary(
                site=site,
                modality=member.introduction.modality,
                training_cases=member.introduction.training_cases,
                rounds_answered=member.rounds_answered,
            )
            for site, member in sorted(group.members.items())
        ),
        "scores": last_scores(group),
        "own_models": bool(group.site_models),
        "usual": {kind: usual for kind, usual in pooled_usual(group, config.contract).items() if kind in modalities},
    }


def _modalities(config: FederationConfig, group: GroupResult) -> list[str]:
    """Return the modalities that the model was trained on: not those of sites whose answers were never used."""
    if config.grouping == "modality":
        return [group.group]
    return sorted({member.introduction.modality for member in group.answering().values()})


def pooled_usual(group: GroupResult, contract: LabelContract) -> dict[str, TrainingUsual]:
    """Return modality → what is usual in the training images of all its sites together, from what they told."""
    told: Mapping[str, list[CohortUsual]] = defaultdict(list)
    for member in group.members.values():
        if member.usual is not None:
            told[member.introduction.modality].append(member.usual)
    pooled = {modality: _pooled(parts, contract) for modality, parts in sorted(told.items())}
    return {modality: usual for modality, usual in pooled.items() if usual.look or usual.volumes}


def _pooled(parts: Sequence[CohortUsual], contract: LabelContract) -> TrainingUsual:
    looks = [part.look for part in parts if part.look is not None]
    volumes = {
        label.name: [part.volumes[label.value] for part in parts if label.value in part.volumes]
        for label in contract.labels
    }
    return TrainingUsual(
        look=Usual.pooled(looks) if looks else None,
        volumes={name: Usual.pooled(found) for name, found in volumes.items() if found},
    )


def last_scores(group: GroupResult) -> tuple[LabelScore, ...]:
    """Return mean and population standard deviation over cases, by label and metric, of the last round with scores.

    A site that gave none in that round counts for nothing: its earlier ones are of a model that is no more.
    """
    last = max((row.round_number for row in group.history if row.scores), default=0)
    values: Mapping[tuple[str, Metric], list[float]] = defaultdict(list)
    for row in group.history:
        for score in row.scores if row.round_number == last else ():
            for metric in _METRICS:
                value = getattr(score, metric)
                if value is not None:
                    values[score.label, metric].append(value)
    return tuple(
        LabelScore(label=label, metric=metric, mean=fmean(found), standard_deviation=pstdev(found), cases=len(found))
        for (label, metric), found in sorted(values.items())
    )
