"""A SuperLink in trouble: the federation's loop goes on with what it knows, and gives up only when it lasts."""

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from FedSegCore.federation.steady_grid import SteadyGrid


class TroubledGrid:
    """Raises ``trouble`` in the next ``times`` calls, then works; stands for Flower's grid over HTTP."""

    def __init__(self, trouble: Exception, times: int) -> None:
        self.trouble = trouble
        self.times = times
        self.pushed: list[Message] = []

    def _call(self) -> None:
        if self.times:
            self.times -= 1
            raise self.trouble

    def get_nodes(self) -> list[str]:
        self._call()
        return ["node"]

    def pull_messages(self, message_ids: list[str]) -> list[str]:
        self._call()
        return [f"reply to {message_id}" for message_id in message_ids]

    def push_messages(self, messages: list[Message]) -> list[str]:
        self.pushed += messages
        self._call()
        return ["id"] * len(messages)


LOCKED = httpx.HTTPStatusError(
    "database is locked", request=httpx.Request("POST", "https://localhost"), response=httpx.Response(500)
)


def message() -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Message(RecordDict(), 7, "train", ttl=50.0, group_id="CT-1")


def test_a_moment_of_trouble_is_got_over() -> None:
    flower = TroubledGrid(LOCKED, 0)
    steady = SteadyGrid(flower)
    assert steady.get_nodes() == ["node"]
    flower.times = 2
    assert steady.get_nodes() == ["node"]
    assert steady.pull_messages(["m"]) == []
    assert steady.pull_messages(["m"]) == ["reply to m"]


def test_a_lost_push_is_made_anew_and_then_given_up() -> None:
    flower = TroubledGrid(ObjectPushError("object", 1, "session"), 1)
    first = message()
    assert SteadyGrid(flower).push_messages([first]) == ["id"]
    again = flower.pushed[1]
    assert again is not first
    told = [
        (m.metadata.dst_node_id, m.metadata.message_type, m.metadata.ttl, m.metadata.group_id) for m in flower.pushed
    ]
    assert told == [(7, "train", 50.0, "CT-1")] * 2
    flower.times = 2
    assert SteadyGrid(flower).push_messages([message()]) == []


def test_trouble_that_lasts_ends_the_run() -> None:
    steady = SteadyGrid(TroubledGrid(LOCKED, 1000))
    for _ in range(30):
        assert steady.pull_messages(["m"]) == []
    with pytest.raises(httpx.HTTPStatusError):
        steady.pull_messages(["m"])
