"""The worker's life: read a line, answer it at once or give it to the work thread, end with the client."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from FedSegCore.worker.channel import LineChannel
from FedSegCore.worker.jobs import JobQueue
from FedSegCore.worker.messages import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    ProtocolError,
    Request,
    RequestId,
    error_message,
    first_fault,
    parse_request,
    result_message,
)
from FedSegCore.worker.methods import Methods

LOGGER = logging.getLogger(__name__)

Params = TypeVar("Params", bound=BaseModel)

SECONDS_TO_STOP = 2.0
SECONDS_BETWEEN_LOOKS_AT_PARENT = 1.0


class CancelParams(BaseModel):
    """Which request to cancel."""

    model_config = ConfigDict(extra="forbid")

    id: RequestId


class WorkerServer:
    """Serves one client over one channel until it closes, says ``shutdown``, or dies.

    Args:
        channel: the lines to and from the client.
        methods: what can be asked.
    """

    def __init__(self, channel: LineChannel, methods: Methods) -> None:
        self._channel = channel
        self._methods = methods
        self._jobs = JobQueue(channel.send, when_idle=methods.warm_up)

    def serve(self) -> None:
        """Answer until the client goes; then cancel what is running and give it two seconds to stop."""
        for line in self._channel.lines():
            try:
                goes_on = self._handle(parse_request(line))
            except ProtocolError as error:
                self._channel.send(error_message(error.request_id, error))
                continue
            if not goes_on:
                break
        self._jobs.close(SECONDS_TO_STOP)

    def _handle(self, request: Request) -> bool:
        """Answer or queue one request; False once the client has asked to shut down."""
        if request.method == "$/cancelRequest":
            self._jobs.cancel(_checked(CancelParams, request).id)
        elif request.id is None:
            LOGGER.debug("notification ignored: %s", request.method[:40])
        elif request.method == "shutdown":
            self._channel.send(result_message(request.id, None))
            return False
        else:
            self._start(request, request.id)
        return True

    def _start(self, request: Request, request_id: RequestId) -> None:
        method = self._methods.find(request.method)
        if method is None:
            raise ProtocolError(
                METHOD_NOT_FOUND, "protocol.unknown-method", "The worker does not know this method.", request_id
            )
        params = _checked(method.params, request)
        if method.quick is not None:
            self._channel.send(result_message(request_id, method.quick(params)))
        elif method.slow is not None and not self._jobs.add(request_id, functools.partial(method.slow, params)):
            raise ProtocolError(INVALID_REQUEST, "protocol.id-in-use", "This id is still being worked on.", request_id)


def _checked(model: type[Params], request: Request) -> Params:
    try:
        return model.model_validate(request.params)
    except ValidationError as error:
        raise ProtocolError(INVALID_PARAMS, "protocol.bad-parameters", first_fault(error), request.id) from error


def watch_parent(on_death: Callable[[], None]) -> None:
    """Call ``on_death`` from a thread of its own once the process that started this one is gone.

    Closing standard input says the same sooner; this is for parents that die with the pipe held open by another child.
    """
    parent = psutil.Process().parent()
    if parent is None:
        return

    def look() -> None:
        try:
            while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                time.sleep(SECONDS_BETWEEN_LOOKS_AT_PARENT)
        except psutil.NoSuchProcess:
            LOGGER.debug("the parent ended between two looks")
        on_death()

    threading.Thread(target=look, name="parent", daemon=True).start()
