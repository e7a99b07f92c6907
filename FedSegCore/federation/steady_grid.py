"""Flower's grid through short troubles of its SuperLink: a restart, a database that is locked for a moment."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError, ObjectUnavailableError

_TROUBLES = (httpx.HTTPStatusError, ObjectPushError, ObjectPullError, ObjectUnavailableError)
_IN_A_ROW = 30

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SteadyGrid:
    """The part of Flower's ``Grid`` that the federation's loop uses; what fails now is tried again at the next look.

    Flower retries by itself while SuperLink cannot be reached, but not when a call is answered with an error, nor when
    the session of a half-done push was lost with the SuperLink that held it.

    Args:
        grid: Flower's grid. After 30 troubles in a row the next one is raised.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._troubles = 0
        self._nodes: list[Any] = []

    def get_nodes(self) -> Iterable[Any]:
        """Return the connected nodes, or in trouble those of the last look."""
        self._nodes = self._try(lambda: list(self._grid.get_nodes()), self._nodes)
        return self._nodes

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; none in trouble."""
        wanted = list(message_ids)
        return self._try(lambda: list(self._grid.pull_messages(wanted)), [])

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages and return their ids; in trouble once more as new messages, then nothing (not sent)."""
        asked = list(messages)
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
            if self._troubles > _IN_A_ROW:
                raise
            _log.warning("SuperLink is in trouble (%s); trying again", type(error).__name__)
            return otherwise
        self._troubles = 0
        return result


def _anew(message: Message) -> Message:
    about = message.metadata
    return Message(message.content, about.dst_node_id, about.message_type, ttl=about.ttl, group_id=about.group_id)
