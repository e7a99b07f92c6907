"""Flower's grid through troubles: a SuperLink that is restarted or locked for a moment, a site that answers rubbish."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpx
from flwr.app import ArrayRecord, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError, ObjectUnavailableError
from google.protobuf.message import Error as ProtobufError

from FedSegCore.federation.bounded_pull import SLACK_BYTES, PulledTooMuchError, bounded_pull
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.membership import TOO_LARGE, UNREADABLE
from FedSegCore.federation.payload import records_of

_RUBBISH = (
    UnexpectedObjectContentError,
    ProtobufError,
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
)
"""What putting a message together raises where its parts, written by a site, are none."""
_ANSWER_MODELS = 5
_HTTP_GRID = "flwr.superlink.grid.http_grid"
_TROUBLES = (httpx.HTTPStatusError, ObjectPushError, ObjectPullError, ObjectUnavailableError)
_IN_A_ROW = 30
_SERVER_TROUBLE_S = 300.0
_SERVER_ERROR = 500

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SteadyGrid:
    """The part of Flower's ``Grid`` that the federation's loop uses; what fails now is tried again at the next look.

    Flower retries by itself while SuperLink cannot be reached, but not when a call is answered with an error, nor when
    the session of a half-done push was lost with the SuperLink that held it. An answer that cannot be put together
    would end the run; here it is an error of that answer.

    Args:
        grid: Flower's grid. After 30 troubles in a row the next one is raised; where it is the server's own (a full
            disk, say), only once this has gone on for five minutes.
        clock: seconds, monotonic.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float] = time.monotonic) -> None:
        self._grid = grid
        self._clock = clock
        self._troubles = 0
        self._well = clock()
        self._nodes: list[Any] = []
        self._most_sent = 0

    def get_nodes(self) -> Iterable[Any]:
        """Return the connected nodes, or in trouble those of the last look."""
        self._nodes = self._try(lambda: list(self._grid.get_nodes()), self._nodes)
        return self._nodes

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; none in trouble, an error for one that is too large or is none."""
        return [reply for message_id in list(message_ids) for reply in self._pull(message_id)]

    def _pull(self, message_id: str) -> list[Message]:
        try:
            return self._try(lambda: list(self._grid.pull_messages([message_id])), [])
        except PulledTooMuchError as error:
            _log.warning("an answer of more than %d bytes was not read", error.allowed)
            return [_error_reply(message_id, TOO_LARGE)]
        except _RUBBISH as error:
            _log.warning("an answer could not be put together (%s)", type(error).__name__)
            return [_error_reply(message_id, UNREADABLE)]

    def bound_answers(self) -> None:
        """Let Flower's grid give up answers, in this process, that weigh several times what was sent to any site.

        An answer holds a model, and for FedGS as much again, in full precision where half went out: four times.
        """
        (module,) = require_flower({_HTTP_GRID: ("pull_objects",)})
        module.pull_objects = bounded_pull(module.pull_objects, lambda: _ANSWER_MODELS * self._most_sent + SLACK_BYTES)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages and return their ids; in trouble once more as new messages, then nothing (not sent)."""
        asked = list(messages)
        self._most_sent = max([self._most_sent, *map(_tensor_bytes, asked)])
        sent = self._try(lambda: list(self._grid.push_messages(asked)), None)
        if sent is None:
            # Anew, since SuperLink may know the first ones' ids, but not what was in them.
            again = [_anew(message) for message in asked]
            sent = self._try(lambda: list(self._grid.push_messages(again)), [])
        return sent

    def _try(self, call: Callable[[], Result], otherwise: Result) -> Result:
        try:
            result = call()
        except _TROUBLES as error:
            self._troubles += 1
            lasts = not _of_the_server(error) or self._clock() - self._well > _SERVER_TROUBLE_S
            if self._troubles > _IN_A_ROW and lasts:
                raise
            _log.warning("SuperLink is in trouble (%s); trying again", type(error).__name__)
            return otherwise
        self._troubles = 0
        self._well = self._clock()
        return result


def _of_the_server(error: Exception) -> bool:
    """Return whether ``error`` is an answer of 5xx; one of 4xx tells that the run was stopped, say."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= _SERVER_ERROR


def _tensor_bytes(message: Message) -> int:
    records = records_of(message.content, ArrayRecord)
    return sum(len(array.data) for _, record in records for array in record.values())


def _error_reply(message_id: str, code: int) -> Message:
    """Return the answer to a message of ours that says only what is wrong with it."""
    about = Metadata(
        run_id=0,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=0.0,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata=about, error=Error(code, ""))


def _anew(message: Message) -> Message:
    about = message.metadata
    return Message(message.content, about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)
