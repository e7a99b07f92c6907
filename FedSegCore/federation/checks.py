"""What each side checks of what the other sent, and a site of what a server asks for, before using any of it."""

import math
from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.fedgs import trained_names
from FedSegCore.federation.aggregation.rule import Aggregate
from FedSegCore.federation.messages import RoundOrder, RoundReport
from FedSegCore.federation.site.policy import PolicyError, TrainingLimits
from FedSegCore.federation.tensors import byte_count
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.results import FEDGS_PREFIX, Arrays, CaseScore, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.volumes.usual import CohortUsual

MAX_MODEL_BYTES = 2 * 1024**3
"""Largest model a site or the server takes."""

MAX_EXAMPLES = 10_000_000
"""More training examples than any site can have: ten thousand volumes of a thousand slices."""

MOST_SLICES = 1_000
"""Most slices of a volume that count as training examples of a 2-D network."""

MOST_MODELS = 100.0
"""Longest update the server looks at, as a multiple of the model it was made of (of 1 where that is shorter). A site's
own gate stops at 10 by default; this is for sites that have set none."""

MOST_LOSS = 1e6
"""Largest mean training loss the server takes, with either sign: nothing that trains has one."""

MOST_DISTANCE_MM = 1e6
"""Largest surface distance: no image is a kilometre long, and means of several stay numbers."""

MOST_USUAL = 50.0
"""Largest number of what a site says is usual: no structure has e^50 ml, and all else is a share of 1."""

_REMEDY = "Nothing of it was used; the sender's log or software version tells why."


def check_limits(task: TrainingTask, weights: Arrays, request: RoundRequest, limits: TrainingLimits) -> None:
    """Check at the site that a round asks for no more than its policy allows.

    Raises:
        PolicyError: ``policy.epochs``, ``policy.steps``, ``policy.batch-size``, ``policy.patch-size``,
            ``policy.rounds``, ``policy.message-size``, ``policy.spacing``.
    """
    training = task.training
    finest = min((side for side in task.preprocessing.spacing if side is not None), default=limits.finest_spacing_mm)
    if finest < limits.finest_spacing_mm:
        raise PolicyError(
            "policy.spacing",
            f"The server asks for voxels of {finest:g} mm, this site allows {limits.finest_spacing_mm:g} mm or more.",
            "Ask the coordinator for a coarser spacing, or lower the limit in the site's policy.json.",
            finest,
            limits.finest_spacing_mm,
        )
    asked = {
        "epochs": (training.epochs if training.steps_per_round is None else 1, limits.epochs),
        "steps": (training.steps_per_round or 1, limits.steps_per_round),
        "batch-size": (training.batch_size, limits.batch_size),
        "patch-size": (math.prod(training.patch_size), limits.patch_voxels),
        "rounds": (max(request.rounds, request.round_number), limits.rounds),
        "message-size": (byte_count(weights), limits.message_bytes),
    }
    for name, (found, allowed) in asked.items():
        if found > allowed:
            raise PolicyError(
                f"policy.{name}",
                f"The server asks for {found} ({name.replace('-', ' ')}), this site allows {allowed}.",
                "Ask the coordinator to want less, or raise the limit in the site's policy.json.",
                found,
                allowed,
            )


def check_order(order: RoundOrder, weights: Arrays, site: SiteDescription) -> None:
    """Check a train message at the site; its numbers' ranges were checked when it was read.

    Raises:
        BadInputError: ``request.*``: another modality, a round beyond the last, a model that is empty, too large or not
            finite.
    """
    if order.task.preprocessing.modality != site.modality:
        raise BadInputError("request.modality", "The task is for another modality than this site's.", _REMEDY)
    if order.round_number > order.rounds:
        raise BadInputError("request.round", f"Round {order.round_number} of {order.rounds} was asked for.", _REMEDY)
    if not weights:
        raise BadInputError("request.model-empty", "The received model holds no tensor.", _REMEDY)
    if sum(array.nbytes for array in weights.values()) > MAX_MODEL_BYTES:
        raise BadInputError("request.model-size", "The received model is larger than a site takes.", _REMEDY)
    _require_finite(weights, "request.model-not-finite")


def check_own_result(result: RoundResult) -> None:
    """Check at the site what it is about to send: BadInputError ``training.not-finite`` if training diverged."""
    if result.loss is not None and not math.isfinite(result.loss):
        raise BadInputError("training.not-finite", "The training loss is not a number.", "Lower the learning rate.")
    _require_finite(result.weights, "training.not-finite")
    _require_finite(result.extras, "training.not-finite")


def check_result(report: RoundReport, weights: Arrays, extras: Arrays, model: Arrays, round_number: int) -> None:
    """Check a site's tensors at the server before any rule sees them.

    Args:
        report: what came with them.
        weights: its model.
        extras: the rule's extra tensors, named ``<rule>/<tensor of the model>``.
        model: a model of the group, for names, shapes and dtypes.
        round_number: the round asked for.

    Raises:
        BadInputError: ``reply.*``, by what is wrong.
    """
    if report.round_number != round_number:
        raise BadInputError("reply.round", f"It answers round {report.round_number}.", _REMEDY)
    check_tensors(weights, extras, model, "reply")
    for name in weights:
        # averaged into BatchNorm's variances of the group it would leave a model that gives nothing
        if name.endswith("running_var") and float(np.min(weights[name], initial=0.0)) < 0.0:
            raise BadInputError("reply.variance", f"Tensor {name!r} holds a variance below 0.", _REMEDY)


def check_extras(extras: Arrays, model: Arrays, training: TrainingConfig) -> None:
    """Check, by their names alone, that extra tensors are such as the round asked for: at most C_k, and only for FedGS.

    One that is put together takes its whole room, however little of it was sent.

    Raises:
        BadInputError: ``reply.extras``.
    """
    asked = {FEDGS_PREFIX + name for name in trained_names(model)} if training.fedgs else set()
    strange = extras.keys() - asked
    if strange:
        raise BadInputError("reply.extras", f"{len(strange)} extra tensors were not asked for.", _REMEDY)


def check_tensors(weights: Arrays, extras: Arrays, model: Arrays, side: str) -> None:
    """Check that tensors are those of ``model`` and finite; an extra one is named ``<rule>/<tensor of the model>``.

    Raises:
        BadInputError: ``<side>.names``, ``<side>.shape``, ``<side>.dtype``, ``<side>.not-finite``.
    """
    if weights.keys() != model.keys():
        odd = sorted(weights.keys() ^ model.keys())
        raise BadInputError(f"{side}.names", f"{len(odd)} tensors are missing or unknown ({odd[0]}).", _REMEDY)
    for name, array in weights.items():
        _require_like(name, array.shape, array.dtype, model, side)
    for name, array in extras.items():
        _require_like(name.partition("/")[2], array.shape, array.dtype, model, side)
    _require_finite(weights, f"{side}.not-finite")
    _require_finite(extras, f"{side}.not-finite")


def check_report(report: RoundReport, labels: Collection[str]) -> None:
    """Check what a site says of its round, under a contract with these ``labels``.

    Raises:
        BadInputError: ``reply.loss``, ``reply.scores``, ``reply.seconds``, ``reply.annotated``, ``reply.lesion-sizes``,
            ``reply.usual``.
    """
    if report.loss is not None and not abs(report.loss) <= MOST_LOSS:
        raise BadInputError("reply.loss", f"Its training loss is {report.loss:.3g}.", _REMEDY)
    if not all(_plausible(score) for score in report.scores):
        raise BadInputError("reply.scores", "A score lies outside its range.", _REMEDY)
    if not {score.label for score in report.scores} <= set(labels):
        raise BadInputError("reply.scores", "It scores a label that the contract does not have.", _REMEDY)
    if not all(math.isfinite(value) and value >= 0.0 for value in report.seconds.values()):
        raise BadInputError("reply.seconds", "A time is negative or not a number.", _REMEDY)
    if any(value > len(labels) for value in report.annotated):
        raise BadInputError("reply.annotated", "It annotates a label that the contract does not have.", _REMEDY)
    if sum(report.lesion_counts) > report.num_examples:
        raise BadInputError("reply.lesion-sizes", "It counts more lesions' images than it has images.", _REMEDY)
    if report.usual is not None and not _possible(report.usual, len(labels), report.num_examples):
        raise BadInputError("reply.usual", "What it says is usual at the site cannot be.", _REMEDY)


def check_counts(report: RoundReport, training: TrainingConfig) -> None:
    """Check that the numbers a site tells are possible for what it was asked to do.

    Raises:
        BadInputError: ``reply.counts``: more examples than ``MAX_EXAMPLES``, examples without a step or steps without
            an example, or more steps than were asked for.
    """
    examples, steps = report.num_examples, report.num_steps
    if examples > MAX_EXAMPLES or (examples > 0) != (steps > 0) or steps > _most_steps(training, examples):
        raise BadInputError("reply.counts", f"{examples} examples and {steps} steps are impossible.", _REMEDY)


def counts_that_weigh(report: RoundReport, task: TrainingTask, training_cases: int) -> tuple[int, int]:
    """Return the examples and steps by which an answer weighs: no more than the cases the site came with can give.

    Who has more by now is not refused: people add cases while their site is connected, and it counts with them from
    its next introduction on.

    Args:
        report: checked.
        task: what was asked for.
        training_cases: as the site introduced itself.
    """
    most = max(1, training_cases) * (MOST_SLICES if task.network.dimensions == 2 else 1)
    examples = min(report.num_examples, most)
    return examples, min(report.num_steps, _most_steps(task.training, examples))


def _most_steps(training: TrainingConfig, examples: int) -> int:
    return training.steps_per_round or training.epochs * math.ceil(examples / training.batch_size)


def check_made(made: Aggregate) -> None:
    """Check what a rule made of a round before it counts; raises ValueError where a value is not finite."""
    for arrays in (made.group_model, made.rule_state):
        if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
            raise ValueError("the result holds values that are not numbers")


def length_of(arrays: Iterable[npt.NDArray[np.generic]]) -> float:
    """Return the L2 norm of all floating-point arrays together, in float64, one at a time."""
    lengths = (float(np.linalg.norm(array.astype(np.float64).ravel())) for array in arrays if array.dtype.kind == "f")
    return math.hypot(*lengths)


def update_length(weights: Arrays, extras: Arrays, received: Arrays) -> float:
    """Return the L2 norm of what a round changed: all floating-point tensors less the received ones, and the extras."""
    # one tensor at a time in float64: a sum of squares in float32 overflows where weights explode
    changes = (
        array.astype(np.float64) - received[name].astype(np.float64)
        for name, array in weights.items()
        if array.dtype.kind == "f"
    )
    return math.hypot(length_of(changes), length_of(extras.values()))


def check_length(length: float, received: Arrays) -> None:
    """Check an update's length against the model it was made of: BadInputError ``reply.norm`` beyond MOST_MODELS."""
    allowed = MOST_MODELS * max(1.0, length_of(received.values()))
    if not length <= allowed:
        raise BadInputError("reply.norm", f"The update's length is {length:.3g}; {allowed:.3g} is most.", _REMEDY)


def _require_like(name: str, shape: tuple[int, ...], dtype: "np.dtype[np.generic]", model: Arrays, side: str) -> None:
    if name not in model:
        raise BadInputError(f"{side}.names", f"There is no tensor {name!r} in the model.", _REMEDY)
    if shape != model[name].shape:
        raise BadInputError(f"{side}.shape", f"Tensor {name!r} has shape {shape}.", _REMEDY)
    if dtype != model[name].dtype:
        raise BadInputError(f"{side}.dtype", f"Tensor {name!r} has type {dtype}.", _REMEDY)


def _require_finite(arrays: Arrays, code: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInputError(code, f"Tensor {name!r} holds values that are not numbers.", _REMEDY)


def _possible(usual: CohortUsual, labels: int, examples: int) -> bool:
    told = [*usual.volumes.values(), *([] if usual.look is None else [usual.look])]
    largest = max((abs(value) for one in told for value in (*one.mean, *one.deviation)), default=0.0)
    known = all(value <= labels for value in usual.volumes)
    return known and all(one.patients <= examples for one in told) and largest <= MOST_USUAL


def _plausible(score: CaseScore) -> bool:
    distance = score.surface_distance_mm
    return (
        0.0 <= score.dice <= 1.0
        and 0.0 <= score.iou <= 1.0
        and (distance is None or 0.0 <= distance <= MOST_DISTANCE_MM)
        and 0 < len(score.case) <= 128
        and 0 < len(score.label) <= 64
    )
