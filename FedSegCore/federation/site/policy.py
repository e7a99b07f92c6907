"""A site's own policy: what a server may ask for, and what may leave. A private file that no server can change."""

import math
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.files import without_bom, write_text
from FedSegCore.common.validation import problems_of
from FedSegCore.learning.privacy import METRICS, PrivacyRules

_MIB = 1024**2
_MAX_FILE = 64 * 1024

_METRIC_WORDS = {
    "overlap": "Dice and IoU of each scored case",
    "surface_distance": "its mean surface distance",
    "loss": "the training loss",
    "seconds": "the times taken",
    "lesion_sizes": "where FedGS asks, how many training images have a lesion of which size (to a factor of two)",
    "volumes": "once a run, mean and spread over patients of each structure's volume",
    "look": "once a run, mean and spread over patients of the images' histogram and roughness",
}


class PolicyError(BadInputError):
    """A site's own policy forbids it; the server learns ``code`` only.

    Args:
        code: ``policy.*`` for what was asked, ``gate.*`` for what would have left.
        what: as for every FedSegError.
        remedy: likewise.
        measured: what was found.
        allowed: the policy's bound.
    """

    def __init__(self, code: str, what: str, remedy: str, measured: float, allowed: float) -> None:
        super().__init__(code, what, remedy)
        self.measured = measured
        self.allowed = allowed


class TrainingLimits(BaseModel):
    """The most a server may ask of this site in one round; how long a round may take is in the site's settings.

    Attributes:
        epochs: passes over the cohort.
        steps_per_round: optimiser steps.
        batch_size: images or patches a step.
        patch_voxels: voxels of a patch.
        rounds: rounds of a run.
        message_bytes: bytes of all tensors received, and of all sent.
        finest_spacing_mm: smallest side of a voxel that images may be resampled to: half of it takes eight times the
            memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1, le=100)] = 20
    steps_per_round: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    batch_size: Annotated[int, Field(ge=1, le=256)] = 64
    patch_voxels: Annotated[int, Field(ge=64, le=2**30)] = 2**24
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    message_bytes: Annotated[int, Field(ge=1, le=2 * 1024**3)] = 512 * _MIB
    finest_spacing_mm: Annotated[float, Field(gt=0.0, le=100.0)] = 0.3


class WorkBudget(BaseModel):
    """The most all servers and all runs together may take of this computer; see ``budget``.

    Attributes:
        hours_per_day: hours of work in any 24 hours.
        hours_per_week: hours of work in any 7 days.
        disk_bytes: bytes of what servers make grow in the site's folder: journal, logs, lists of refused bundles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours_per_day: Annotated[float, Field(ge=0.0, le=24.0)] = 14.0
    hours_per_week: Annotated[float, Field(ge=0.0, le=168.0)] = 70.0
    disk_bytes: Annotated[int, Field(ge=_MIB)] = 1024 * _MIB


class SitePolicy(BaseModel):
    """What a site allows.

    Attributes:
        privacy: what may leave; a federation may ask for stricter rules, never for laxer ones.
        limits: what may be asked for in one round.
        budget: what may be asked for in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    privacy: PrivacyRules = PrivacyRules(minimum_cases=5, norm_bound=10.0, decimals=3)
    limits: TrainingLimits = TrainingLimits()
    budget: WorkBudget = WorkBudget()


def policy_for(minimum_cases: int | None) -> SitePolicy:
    """Return the policy of a new site that asks for so many patients, None for the default.

    Raises:
        UsageError: ``policy.minimum-cases``.
    """
    usual = SitePolicy()
    if minimum_cases is None:
        return usual
    try:
        rules = PrivacyRules.model_validate({**usual.privacy.model_dump(), "minimum_cases": minimum_cases})
    except ValidationError as error:
        raise UsageError(
            "policy.minimum-cases",
            f"A site cannot ask for {minimum_cases} patients: {problems_of(error)}.",
            "Give another number.",
        ) from error
    return SitePolicy(privacy=rules)


def read_policy(path: Path) -> SitePolicy:
    """Read a site's policy.

    Raises:
        BadInputError: ``policy.unreadable``, ``policy.invalid``; a damaged policy is never taken for a lax one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise BadInputError(
            "policy.unreadable", "The site's policy cannot be read.", "Restore policy.json in the site's folder."
        ) from error
    if len(content) > _MAX_FILE:
        raise BadInputError("policy.invalid", "The site's policy is not a policy.", "Restore policy.json.")
    try:
        return SitePolicy.model_validate_json(without_bom(content))
    except ValidationError as error:
        problems = problems_of(error, 5)
        raise BadInputError(
            "policy.invalid", f"The site's policy is wrong: {problems}.", "Correct the named entries of policy.json."
        ) from error


def write_policy(path: Path, policy: SitePolicy) -> None:
    """Write a site's policy whole, readable by its owner only."""
    write_text(path, policy.model_dump_json(indent=2) + "\n", private=True)


def policy_words(policy: SitePolicy) -> list[str]:
    """Return the policy in sentences, what may leave first."""
    return [*_privacy_words(policy.privacy), *_limit_words(policy.limits), *_budget_words(policy.budget)]


def _privacy_words(rules: PrivacyRules) -> list[str]:
    given = [_METRIC_WORDS[name] for name in METRICS if name in rules.metrics]
    words = [
        "Leaves the site: the model's tensors, numbers of examples and steps, which labels are annotated.",
        "Leaves too: the site's name, modality, numbers of cases and software versions.",
        f"Leaves rounded to {rules.decimals} decimals: {', '.join(given)}." if given else "No metric leaves.",
        "Case ids leave as pseudonyms that only this site can resolve.",
        f"Nothing leaves with fewer than {rules.minimum_cases} patients to train on, no scores with fewer to score on.",
    ]
    if rules.norm_bound is not None:
        words.append(f"An update longer than {rules.norm_bound:g} times the received model is not sent.")
    if rules.clip_norm is not None:
        words.append(f"The update is scaled down to a length of {rules.clip_norm:g} where it is longer.")
    if rules.noise_multiplier is None:
        words.append("No noise is added: differential privacy is not claimed.")
    else:
        words.append(
            f"Gaussian noise of {rules.noise_multiplier:g} times that length is added to every value sent; the journal "
            f"tells the running ε for δ = {rules.delta:g}, which has no bound where rounds left without noise before. "
            "It covers the tensors, not the metrics and counts."
        )
    if rules.epsilon_limit is not None:
        words.append(f"Once ε would pass {rules.epsilon_limit:g}, nothing is sent any more.")
    return words


def _limit_words(limits: TrainingLimits) -> list[str]:
    edge = round(math.cbrt(limits.patch_voxels))
    return [
        f"A server may ask for at most {limits.epochs} epochs or {limits.steps_per_round} steps a round.",
        f"It may ask for batches of {limits.batch_size}, patches of {limits.patch_voxels} voxels (a cube of {edge}).",
        f"It may ask for {limits.rounds} rounds a run, and for voxels of {limits.finest_spacing_mm:g} mm or more.",
        f"Messages hold at most {limits.message_bytes / _MIB:g} MiB of tensors, in and out.",
    ]


def _budget_words(budget: WorkBudget) -> list[str]:
    hours = f"{budget.hours_per_day:g} hours in any 24 hours and {budget.hours_per_week:g} in any 7 days"
    room = f"{budget.disk_bytes / _MIB:g} MiB"
    return [
        f"All servers together may make this computer work {hours}; a round that has begun is finished.",
        f"Journal, logs and lists of refused bundles may fill {room}; beyond that nothing is answered.",
    ]
