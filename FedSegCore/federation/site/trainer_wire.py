"""What a ClientApp process and the site's trainer say to each other over their local socket.

A message is one or two byte frames: a JSON header, and tensors as safetensors where the header says so. Connections
are used through ``send_bytes`` and ``recv_bytes`` only: ``send`` and ``recv`` would pickle.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import safetensors.numpy

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.learning.results import Arrays, CaseScore, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.volumes.usual import CohortUsual

_MAX_HEADER = 16 * 1024 * 1024
_KINDS: dict[str, type[FedSegError]] = {"bad-input": BadInputError, "cannot-here": CannotDoHereError}


@dataclass(frozen=True)
class Frame:
    """One message: its header, and tensors by name if it carries any."""

    header: Mapping[str, Any]
    tensors: Arrays | None = None


def send(connection: Connection, frame: Frame) -> None:
    """Send one message."""
    header = {**frame.header, "tensors": frame.tensors is not None}
    connection.send_bytes(json.dumps(header, allow_nan=False).encode("utf-8"))
    if frame.tensors is not None:
        plain = {name: np.require(array, requirements="C") for name, array in frame.tensors.items()}
        connection.send_bytes(safetensors.numpy.save(plain))


def receive(connection: Connection) -> Frame:
    """Receive one message; raises EOFError when the other side has gone, ValueError for anything but a message."""
    header = json.loads(connection.recv_bytes(_MAX_HEADER))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    tensors = safetensors.numpy.load(connection.recv_bytes()) if header.pop("tensors", False) else None
    return Frame(header, tensors)


def order_frame(task: TrainingTask, weights: Arrays, request: RoundRequest) -> Frame:
    """Return the message that asks for a round."""
    rules = {"privacy": request.privacy, "exchange": request.exchange}
    asked = {**asdict(request), **{name: rule.model_dump(mode="json") for name, rule in rules.items()}}
    header = {"method": "train_round", "task": task.model_dump(mode="json"), "request": asked}
    return Frame(header, weights)


def read_order(frame: Frame) -> tuple[TrainingTask, Arrays, RoundRequest]:
    """Read what ``order_frame`` wrote; raises ValueError or TypeError for anything else."""
    if frame.tensors is None:
        raise ValueError("no tensors were sent")
    asked = dict(frame.header["request"])
    asked["privacy"] = PrivacyRules.model_validate(asked["privacy"])
    asked["exchange"] = ExchangeConfig.model_validate(asked["exchange"])
    asked["trained_values"] = tuple(asked["trained_values"])
    return TrainingTask.model_validate(frame.header["task"]), frame.tensors, RoundRequest(**asked)


def result_frame(result: RoundResult) -> Frame:
    """Return the answer that holds a round's result."""
    numbers = asdict(replace(result, weights={}, extras={}, seconds=dict(result.seconds)))
    numbers["usual"] = result.usual and result.usual.model_dump(mode="json")
    tensors = {f"w/{name}": array for name, array in result.weights.items()}
    tensors |= {f"x/{name}": array for name, array in result.extras.items()}
    return Frame({"result": numbers}, tensors)


def read_result(frame: Frame) -> RoundResult:
    """Read what ``result_frame`` wrote; raises the FedSegError that ``error_frame`` wrote."""
    raise_error(frame)
    tensors = frame.tensors or {}
    numbers = dict(frame.header["result"])
    numbers["scores"] = tuple(CaseScore(**score) for score in numbers["scores"])
    numbers["usual"] = numbers["usual"] and CohortUsual.model_validate(numbers["usual"])
    numbers |= {name: tuple(numbers[name]) for name in ("annotated", "lesion_counts", "unchanged")}
    numbers["weights"] = {name[2:]: array for name, array in tensors.items() if name.startswith("w/")}
    numbers["extras"] = {name[2:]: array for name, array in tensors.items() if name.startswith("x/")}
    return RoundResult(**numbers)


def error_frame(error: FedSegError) -> Frame:
    """Return the answer that holds an error."""
    kind = next((kind for kind, cls in _KINDS.items() if isinstance(error, cls)), "other")
    return Frame({"error": {"kind": kind, "code": error.code, "what": error.what, "remedy": error.remedy}})


def raise_error(frame: Frame) -> None:
    """Raise the error a message holds, if it holds one."""
    error = frame.header.get("error")
    if error is not None:
        cls = _KINDS.get(error["kind"], FedSegError)
        raise cls(error["code"], error["what"], error["remedy"])
