"""The outgoing gate: what of a round's result may leave the site.

Pure: rules, received model and result in; what may leave, or a refusal, out. Nothing is read, written or remembered.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.checks import check_tensors, length_of, update_length
from FedSegCore.federation.site.policy import PolicyError
from FedSegCore.federation.tensors import byte_count
from FedSegCore.learning.privacy import PrivacyRules, told_usual
from FedSegCore.learning.results import Arrays, CaseScore, RoundResult

_TIMES = ("scoring", "training")
_REMEDY = "Nothing was sent; the site's policy says what may leave."


@dataclass(frozen=True)
class GateFacts:
    """What the gate must know beside rules, model and result.

    Attributes:
        training_patients: distinct patients trained on.
        scored_patients: distinct patients scored on.
        extras: rules whose extra tensors the task asks for (``"fedgs"``).
        labels: number of labels of the contract.
        max_bytes: most bytes of tensors.
        pseudonym: case id → what the server sees instead.
        generator: draws the noise.
    """

    training_patients: int
    scored_patients: int
    extras: frozenset[str]
    labels: int
    max_bytes: int
    pseudonym: Callable[[str], str]
    generator: np.random.Generator


@dataclass(frozen=True)
class Outgoing:
    """What may leave.

    Attributes:
        result: cleared, clipped, noisy, rounded.
        norm: L2 norm of the update before clipping.
        clipped: it was longer than the clipping norm.
        suppressed: scores were held back because too few patients were scored.
    """

    result: RoundResult
    norm: float
    clipped: bool
    suppressed: bool


def pass_gate(rules: PrivacyRules, received: Arrays, result: RoundResult, facts: GateFacts) -> Outgoing:
    """Return what may leave of ``result``.

    With noise, the length of the update is bounded by clipping alone: a refusal that depends on the data would itself
    tell something that ε does not count.

    Raises:
        PolicyError: ``gate.too-few-cases``, ``gate.norm``, ``gate.message-size``.
        BadInputError: ``gate.names``, ``gate.shape``, ``gate.dtype``, ``gate.not-finite``, ``gate.extras``,
            ``gate.counters``, ``gate.counts``.
    """
    require_patients(rules, facts.training_patients)
    _check_what_it_is(received, result, facts)
    norm = _bounded_length(rules, received, result)
    clipped = rules.clip_norm is not None and norm > rules.clip_norm
    if rules.clip_norm is not None:
        result = _clip_and_blur(rules, received, result, norm, facts.generator)
    suppressed = bool(result.scores) and facts.scored_patients < rules.minimum_cases
    return Outgoing(_metrics(rules, result, suppressed, facts.pseudonym), norm, clipped, suppressed)


def check_leaving(rules: PrivacyRules, received: Arrays, arriving: RoundResult, facts: GateFacts) -> None:
    """Check what the server will make of a cleared result, after it was brought into the form in which it travels.

    Rounding and leaving out only shorten an update, so this refuses nothing but what our own code did wrong.

    Raises:
        PolicyError, BadInputError: as ``pass_gate``.
    """
    _check_what_it_is(received, arriving, facts)
    _bounded_length(rules, received, arriving)


def require_patients(rules: PrivacyRules, training_patients: int) -> None:
    """Refuse with ``gate.too-few-cases`` where fewer patients are trained on than the rules demand."""
    if training_patients < rules.minimum_cases:
        raise PolicyError(
            "gate.too-few-cases",
            f"The site trains on {training_patients} patients; its rules demand {rules.minimum_cases}.",
            "Add cases to the cohort, or lower minimum_cases in policy.json.",
            training_patients,
            rules.minimum_cases,
        )


def _bounded_length(rules: PrivacyRules, received: Arrays, result: RoundResult) -> float:
    norm = update_length(result.weights, result.extras, received)
    if rules.noise_multiplier is None and rules.norm_bound is not None:
        allowed = rules.norm_bound * max(1.0, length_of(received.values()))
        if not norm <= allowed:
            raise PolicyError("gate.norm", "The update is far longer than the model.", _REMEDY, norm, allowed)
    return norm


def _check_what_it_is(received: Arrays, result: RoundResult, facts: GateFacts) -> None:
    check_tensors(result.weights, result.extras, received, "gate")
    strange = {name for name in result.extras if name.partition("/")[0] not in facts.extras}
    strange |= {name for name, array in result.extras.items() if array.dtype.kind != "f"}
    if strange:
        raise BadInputError("gate.extras", f"{len(strange)} extra tensors were not asked for.", _REMEDY)
    for name, array in result.weights.items():
        if array.dtype.kind != "f" and not np.array_equal(array, received[name]):
            raise BadInputError("gate.counters", f"The tensor {name!r} is no weight and was changed.", _REMEDY)
    told = [result.loss or 0.0, *result.seconds.values()]
    told += [value or 0.0 for s in result.scores for value in (s.dice, s.iou, s.surface_distance_mm)]
    if not all(map(math.isfinite, told)):
        raise BadInputError("gate.not-finite", "A loss, time or score is not a number.", _REMEDY)
    usual = result.usual.volumes if result.usual else {}
    strange_labels = {*result.annotated, *usual} - set(range(1, facts.labels + 1))
    if strange_labels or min(result.num_examples, result.num_steps, *result.lesion_counts) < 0:
        raise BadInputError("gate.counts", "A count or a label is impossible.", _REMEDY)
    size = byte_count(result.weights) + byte_count(result.extras)
    if size > facts.max_bytes:
        raise PolicyError("gate.message-size", "The answer is too large.", _REMEDY, size, facts.max_bytes)


def _clip_and_blur(
    rules: PrivacyRules, received: Arrays, result: RoundResult, norm: float, generator: np.random.Generator
) -> RoundResult:
    clip = rules.clip_norm or 0.0
    scale = min(1.0, clip / norm) if norm > 0.0 else 1.0
    deviation = clip * (rules.noise_multiplier or 0.0)

    def blurred(change: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return change * scale + (generator.normal(0.0, deviation, change.shape) if deviation else 0.0)

    def weight(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if array.dtype.kind != "f":
            return array
        before = received[name].astype(np.float64)
        after = before + blurred(array.astype(np.float64) - before)
        if name.endswith("running_var"):
            # a variance below 0 would make the network useless; cutting it off tells nothing new
            after = np.maximum(after, 0.0)
        return np.asarray(after, dtype=array.dtype)

    return replace(
        result,
        weights={name: weight(name, array) for name, array in result.weights.items()},
        extras={
            name: np.asarray(blurred(array.astype(np.float64)), dtype=array.dtype)
            for name, array in result.extras.items()
        },
    )


def _metrics(
    rules: PrivacyRules, result: RoundResult, suppressed: bool, pseudonym: Callable[[str], str]
) -> RoundResult:
    def rounded(value: float) -> float:
        return round(value, rules.decimals)

    def score(given: CaseScore) -> CaseScore:
        distance = given.surface_distance_mm if "surface_distance" in rules.metrics else None
        return CaseScore(
            pseudonym(given.case),
            given.label,
            rounded(given.dice),
            rounded(given.iou),
            None if distance is None else rounded(distance),
        )

    scored = "overlap" in rules.metrics and not suppressed
    told = "loss" in rules.metrics and result.loss is not None
    return replace(
        result,
        loss=rounded(result.loss) if told and result.loss is not None else None,
        scores=tuple(score(given) for given in result.scores) if scored else (),
        skipped_steps=0,
        lesion_counts=result.lesion_counts if "lesion_sizes" in rules.metrics else (),
        usual=result.usual and told_usual(result.usual, rules),
        seconds={name: rounded(result.seconds[name]) for name in _TIMES if name in result.seconds}
        if "seconds" in rules.metrics
        else {},
    )
