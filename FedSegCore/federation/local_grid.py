"""An in-process Grid: the same server loop and client apps without processes, for experiments and tests.

Every message and reply goes through Flower's own serialisation, so that what works here works on the wire.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from FedSegCore.federation.client_app import SITE_KEY
from FedSegCore.federation.message_spool import MessageSpool

_SERVER = 1
_APP_RAISED = 2
_UNAVAILABLE = 5


@dataclass
class LocalNode:
    """One site's node.

    Attributes:
        app: its client app.
        online: whether it is connected; messages to a node that is not get Flower's error reply.
        delay_s: time from a train message to its answer, by the grid's clock.
        silent: it never answers a train message (it hangs).
    """

    app: ClientApp
    online: bool = True
    delay_s: float = 0.0
    silent: bool = False
    context: Context | None = None


@dataclass
class _Pending:
    message: Message
    due: float
    reply: "Future[Message] | None" = None


@dataclass
class LocalGrid(Grid):
    """Flower's Grid over client apps in this process.

    Without an executor a message is worked on when its reply is pulled, so that one result at a time is in memory.

    Args:
        nodes: site name → node; may be changed between steps (late joiners). Node ids are 2, 3 … in order of adding.
        clock: seconds, monotonic; delays are measured on it.
        executor: works on messages at once and in parallel; None works when pulled.
        folder: where messages wait, so that memory does not grow with sites; **its content is deleted** with the first
            message. None keeps them in memory.
    """

    nodes: dict[str, LocalNode]
    clock: Callable[[], float] = time.monotonic
    executor: Executor | None = None
    folder: Path | None = None
    _ids: dict[str, int] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _sent: int = 0

    def __post_init__(self) -> None:
        # Flower's Message() reads these in the process that makes it
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _SERVER, _SERVER, _SERVER
        self._spool = MessageSpool(self.folder)

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """Not known here."""
        raise NotImplementedError("a local grid has no run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are online."""
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the nodes that are online, without names: sites introduce themselves."""
        return [NodeInfo(node_id=self._id(name)) for name, node in self.nodes.items() if node.online]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; returns their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = f"message-{self._sent}"
            message.metadata.__dict__["_message_id"] = message_id
            node = self._node(message)
            training = message.metadata.message_type == MessageType.TRAIN
            self._spool.put(message)
            about = remove_content_from_message(message)
            pending = _Pending(about, self.clock() + (node.delay_s if training else 0.0))
            if self.executor is not None:
                pending.reply = self.executor.submit(self._work, about)
            self._pending[message_id] = pending
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return [reply for message_id in message_ids if (reply := self._reply(message_id)) is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002
        """Return what answers at once; the federation's loop does its own waiting."""
        return self.pull_messages(self.push_messages(messages))

    def close(self) -> None:
        """Forget what waits."""
        self._spool.close()

    def _reply(self, message_id: str) -> Message | None:
        pending = self._pending.get(message_id)
        if pending is None:
            return None
        node = self._node(pending.message)
        if node.online:
            training = pending.message.metadata.message_type == MessageType.TRAIN
            if (training and node.silent) or self.clock() < pending.due:
                return None
            if pending.reply is not None and not pending.reply.done():
                return None
        del self._pending[message_id]
        if not node.online:
            if pending.reply is None:
                self._spool.drop(message_id)
            return _error(pending.message, _UNAVAILABLE, "Node Unavailable")
        return pending.reply.result() if pending.reply is not None else self._work(pending.message)

    def _work(self, message: Message) -> Message:
        node = self._node(message)
        if node.context is None:
            node.context = self._context(message.metadata.dst_node_id)
        try:
            return _over_the_wire(node.app(self._spool.take(message.metadata.message_id), node.context))
        except Exception as error:  # noqa: BLE001 - Flower answers so for whatever an app raises
            return _error(message, _APP_RAISED, str(error))

    def _context(self, node_id: int) -> Context:
        config = {SITE_KEY: self._names[node_id]}
        return Context(run_id=_SERVER, node_id=node_id, node_config=config, state=RecordDict(), run_config={})

    def _id(self, name: str) -> int:
        if name not in self._ids:
            self._ids[name] = len(self._ids) + _SERVER + 1
            self._names[self._ids[name]] = name
        return self._ids[name]

    def _node(self, message: Message) -> LocalNode:
        return self.nodes[self._names[message.metadata.dst_node_id]]


def _over_the_wire(message: Message) -> Message:
    """Take ``message`` apart into Flower's content-addressed objects and put it together again, as the wire does."""
    spool = MessageSpool()
    spool.put(message)
    return spool.take(message.metadata.message_id)


def _error(message: Message, code: int, reason: str) -> Message:
    reply = Message(Error(code=code, reason=reason), reply_to=message)
    # on the real grid too, such a reply seems to come from the SuperLink
    reply.metadata.__dict__["_src_node_id"] = _SERVER
    return reply
