"""A member with an admitted key that means harm: it speaks Flower's own wire and answers as a test says."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response

from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.messages import SiteIntroduction, read_order, write_introduction, write_result
from FedSegCore.federation.site.keys import make_site_key, read_private_key
from FedSegCore.federation.software import software_versions
from FedSegCore.learning.results import RoundResult

_INTRODUCTION = SiteIntroduction(
    site="mallory",
    modality="CT",
    training_cases=1,
    validation_cases=0,
    software=software_versions(),
    fingerprint="0" * 64,
)


class HostileMember:
    """Connected while the context lasts; answers who it is, and a round as ``rounds`` says of its number.

    Args:
        coordinator: which has admitted ``key.pub`` in ``folder``.
        folder: of its key, see ``make_key``.
        rounds: round → ``"rubbish"``, ``"forged"`` or ``"giant"``.
    """

    def __init__(self, coordinator: CoordinatorFolder, folder: Path, rounds: dict[int, str]) -> None:
        self._address = f"127.0.0.1:{coordinator.settings().fleet_port}"
        self._authority = coordinator.authority_certificate.read_bytes()
        self._key = read_private_key(folder / "key")
        self._rounds = rounds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @staticmethod
    def make_key(folder: Path) -> Path:
        folder.mkdir()
        make_site_key(folder / "key", folder / "key.pub")
        return folder / "key.pub"

    def __enter__(self) -> "HostileMember":
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20.0)

    def _serve(self) -> None:
        keys = (self._key, self._key.public_key())
        with http_request_response(self._address, False, self._authority, keys) as connection:
            _, receive, send, _, _, pull, push, confirm = connection
            while not self._over.wait(0.3):
                came = receive()
                if came is None:
                    continue
                about, tree = came
                run_id, message_id = about.metadata.run_id, about.metadata.message_id
                names = [part.object_id for part in iterate_object_tree(tree)]
                parts = pull_objects(names, lambda name, run_id=run_id: pull(run_id, name))
                confirm(run_id, message_id)
                asked = inflate_object_from_contents(message_id, parts)
                asked.metadata.__dict__["_message_id"] = message_id
                reply, tree, parts = self._answer(asked)
                missing, session = send(reply, tree, 0.0)
                for name in missing:
                    push(run_id, session, name, parts[name])

    def _answer(self, asked: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
        if asked.metadata.message_type.startswith(MessageType.QUERY):
            return _taken_apart(Message(write_introduction(_INTRODUCTION), reply_to=asked))
        order, weights = read_order(asked.content)
        kinds: dict[str, Callable[[], tuple[Message, ObjectTree, dict[str, bytes]]]] = {
            "rubbish": lambda: _rubbish(honest),
            "forged": lambda: _forged(honest),
            "giant": lambda: _taken_apart(Message(_giant(), reply_to=asked)),
        }
        honest = Message(write_result(RoundResult(weights, 1, 1, 0.5), order.round_number), reply_to=asked)
        return kinds[self._rounds[order.round_number]]()


def _taken_apart(reply: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply, get_object_tree(reply), parts


def _rubbish(reply: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    """A message whose own part has the right hash and length and is none."""
    reply, tree, parts = _taken_apart(reply)
    head, divider, body = parts.pop(tree.object_id).partition(b"\0")
    content = head + divider + b"\xff" * len(body)
    name = hashlib.sha256(content).hexdigest()
    reply.metadata.__dict__["_message_id"] = name
    return reply, ObjectTree(object_id=name, children=tree.children), {**parts, name: content}


def _forged(reply: Message) -> tuple[Message, ObjectTree, dict[str, bytes]]:
    """A message that SuperLink takes for the answer to what was asked, and that says it answers something else."""
    true = reply.metadata.reply_to_message_id
    reply.metadata.__dict__["_reply_to_message_id"] = "f" * 64
    reply, tree, parts = _taken_apart(reply)
    reply.metadata.__dict__["_reply_to_message_id"] = true
    return reply, tree, parts


def _giant() -> RecordDict:
    # random, so that its chunks are not told apart as one and the same
    return RecordDict({"model": ArrayRecord({"tensors": Array(np.random.default_rng(1).random(5_000_000))})})
