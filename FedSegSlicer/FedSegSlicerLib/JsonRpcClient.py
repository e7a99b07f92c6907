"""JSON-RPC 2.0 with the worker: requests out, answers, errors and progress in."""

import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .Errors import UserError
from .WorkerProcess import WorkerProcessProtocol


@dataclass(frozen=True)
class Progress:
    """How far a request is.

    Attributes:
        fraction: 0 to 1.
        stage: what is being done, in words.
        etaSeconds: estimate of what remains, None where it is too early to say.
    """

    fraction: float
    stage: str
    etaSeconds: float | None


@dataclass(frozen=True)
class _Pending:
    onResult: Callable[[Any], None]
    onError: Callable[[UserError], None]
    onProgress: Callable[[Progress], None] | None


class JsonRpcClient:
    """Sends requests to a running worker and calls back, once each, with its answer or an error.

    Args:
        process: the worker; its ending fails every open request.
    """

    def __init__(self, process: WorkerProcessProtocol) -> None:
        self._process = process
        self._pending: dict[int, _Pending] = {}
        self._ids = itertools.count(1)
        process.lineReceived.connect(self._onLine)
        process.finished.connect(self._onFinished)

    def request(
        self,
        method: str,
        params: dict[str, Any],
        onResult: Callable[[Any], None],
        onError: Callable[[UserError], None],
        onProgress: Callable[[Progress], None] | None = None,
    ) -> int:
        """Send a request; return its id, by which it can be cancelled."""
        requestId = next(self._ids)
        self._pending[requestId] = _Pending(onResult, onError, onProgress)
        self._send({"jsonrpc": "2.0", "id": requestId, "method": method, "params": params})
        return requestId

    def cancel(self, requestId: int) -> None:
        """Ask the worker to stop a request; its answer is then an error with code ``cancelled``."""
        self._send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": requestId}})

    def isBusy(self) -> bool:
        """Return whether any request has not been answered yet."""
        return bool(self._pending)

    def _send(self, message: dict[str, Any]) -> None:
        self._process.write(json.dumps(message, allow_nan=False).encode() + b"\n")

    def _onLine(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            logging.warning("FedSegSlicer: the worker sent a line that is not JSON")
            return
        if not isinstance(message, dict):
            return
        if message.get("method") == "$/progress":
            self._onProgress(message["params"])
        elif "id" in message:
            self._onAnswer(message)

    def _onProgress(self, params: dict[str, Any]) -> None:
        pending = self._pending.get(params["id"])
        if pending is not None and pending.onProgress is not None:
            pending.onProgress(Progress(params["fraction"], params["stage"], params["eta_seconds"]))

    def _onAnswer(self, message: dict[str, Any]) -> None:
        pending = self._pending.pop(message["id"], None)
        if pending is None:
            return
        if "error" not in message:
            pending.onResult(message["result"])
            return
        data = message["error"].get("data", {})
        cause = data.get("cause", message["error"].get("message", ""))
        pending.onError(UserError(data.get("code", "worker.failed"), cause, data.get("remedy", "")))

    def _onFinished(self, reason: str) -> None:
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.onError(workerEnded(reason))


def workerEnded(reason: str) -> UserError:
    """Return the error of a worker that is gone while it was needed."""
    from slicer.i18n import tr as _

    return UserError(
        "worker.ended",
        _("FedSegSlicer's worker stopped: {reason}.").format(reason=reason),
        _("Nothing was lost; try again. If it happens again, the image may need more memory than there is."),
    )
