"""What each side checks of what the other sent, and a site of what a server asks for, before using any of it."""

import math

import numpy as np

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.messages import RoundOrder, RoundReport
from FedSegCore.federation.site.policy import TrainingLimits
from FedSegCore.federation.tensors import byte_count
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.results import Arrays, CaseScore, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask

MAX_MODEL_BYTES = 2 * 1024**3
"""Largest model a site or the server takes."""

_REMEDY = "Nothing of it was used; the sender's log or software version tells why."


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


def check_limits(task: TrainingTask, weights: Arrays, request: RoundRequest, limits: TrainingLimits) -> None:
    """Check at the site that a round asks for no more than its policy allows.

    Raises:
        PolicyError: ``policy.epochs``, ``policy.steps``, ``policy.batch-size``, ``policy.patch-size``,
            ``policy.rounds``, ``policy.message-size``.
    """
    training = task.training
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


def check_report(report: RoundReport, labels: int) -> None:
    """Check what a site says of its round, under a contract with so many ``labels``.

    Raises:
        BadInputError: ``reply.scores``, ``reply.seconds``, ``reply.annotated``.
    """
    if not all(_plausible(score) for score in report.scores):
        raise BadInputError("reply.scores", "A score lies outside its range.", _REMEDY)
    if not all(math.isfinite(value) and value >= 0.0 for value in report.seconds.values()):
        raise BadInputError("reply.seconds", "A time is negative or not a number.", _REMEDY)
    if any(value > labels for value in report.annotated):
        raise BadInputError("reply.annotated", "It annotates a label that the contract does not have.", _REMEDY)


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


def _plausible(score: CaseScore) -> bool:
    distance = score.surface_distance_mm
    return (
        0.0 <= score.dice <= 1.0
        and 0.0 <= score.iou <= 1.0
        and (distance is None or (math.isfinite(distance) and distance >= 0.0))
        and 0 < len(score.case) <= 128
        and 0 < len(score.label) <= 64
    )
