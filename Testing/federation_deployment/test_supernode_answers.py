"""The answer to the message in hand leaves before the next message is asked for, on Flower's own loop and state."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate import NodeStateFactory

from FedSegCore.federation.site.supernode import AnswerInHand


class Node:
    """Flower's state and store of a node, to which orders come and which answers them."""

    def __init__(self) -> None:
        objects = ObjectStoreFactory()
        self.given = {"state": NodeStateFactory(objects).state(), "object_store": objects.store()}
        self.given["state"].set_node_id(1)
        self.sent: list[str] = []

    def order(self, name: str) -> Message:
        message = Message(RecordDict(), 1, "train")
        message.metadata.__dict__.update(_run_id=7, _message_id=name, _src_node_id=2)
        return message

    def answer(self, order: Message) -> None:
        loop._insert_message(Message(RecordDict(), reply_to=order), self.given["state"], self.given["object_store"])

    def push_with(self, push: Any) -> None:
        def send(message: Message, _tree: Any, _seconds: float) -> tuple[set[str], str]:
            self.sent.append(message.metadata.reply_to_message_id)
            return set(), "session"

        push(send=send, push_object=lambda *_: None, **self.given)


@contextmanager
def answered_later(node: Node, order: Message) -> Iterator[None]:
    thread = threading.Thread(target=lambda: (time.sleep(0.3), node.answer(order)))
    thread.start()
    yield
    thread.join()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    made = Node()
    monkeypatch.setattr(made.given["state"], "get_message_processing_duration", lambda **_: 0.0)
    return made


def test_an_answer_too_many_does_not_keep_the_others_back(node: Node) -> None:
    ended, first, second = (node.order(text) for text in ("ended", "first", "second"))
    orders = iter([first, second])
    answers = AnswerInHand(lambda receive: receive(), loop._push_messages)
    node.answer(ended)
    for order in (first, second):
        assert answers.pull(receive=lambda: (next(orders), None)) == (order, None)
        with answered_later(node, order):
            node.push_with(answers.push)
            assert node.sent[-1] == order.metadata.message_id
    assert node.sent == [order.metadata.message_id for order in (ended, first, second)]


def test_without_it_flower_does(node: Node) -> None:
    """Were that otherwise, AnswerInHand were not needed."""
    ended, first = node.order("ended"), node.order("first")
    node.answer(ended)
    with answered_later(node, first):
        node.push_with(loop._push_messages)
        assert node.sent == [ended.metadata.message_id]


def test_no_message_in_hand_is_no_error() -> None:
    assert AnswerInHand(lambda receive: receive(), lambda **_: None).pull(receive=lambda: None) is None
