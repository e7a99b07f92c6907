"""A SuperLink in trouble: the federation's loop goes on with what it knows, and gives up only when it lasts."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.supercore.heartbeat import make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime.runtime_http_client import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient

from FedSegCore.federation.heartbeats import keep_heart_beating
from FedSegCore.federation.steady_grid import SteadyGrid
from FedSegCore.federation.superexec import steady_client


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
    refused = httpx.HTTPStatusError(
        "no such run", request=httpx.Request("POST", "https://localhost"), response=httpx.Response(403)
    )
    steady = SteadyGrid(TroubledGrid(refused, 1000))
    for _ in range(30):
        assert steady.pull_messages(["m"]) == []
    with pytest.raises(httpx.HTTPStatusError):
        steady.pull_messages(["m"])


def test_a_disk_that_is_full_for_minutes_does_not_end_the_run() -> None:
    seconds = iter(range(302))
    steady = SteadyGrid(TroubledGrid(LOCKED, 1000), clock=lambda: next(seconds))
    for _ in range(300):
        assert steady.pull_messages(["m"]) == []
    with pytest.raises(httpx.HTTPStatusError):
        steady.pull_messages(["m"])


class TaskServer(BaseHTTPRequestHandler):
    """Answers with the codes that are left, then that there is no task; stands for SuperLink's Runtime API."""

    codes: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.codes.pop(0) if self.codes else 200)
        self.send_header("content-type", "application/protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def asking() -> Iterator[RuntimeHttpClient]:
    """SuperExec's client, of a server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), TaskServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = steady_client(RuntimeHttpClient, AcquireTaskResponse)
        address = f"127.0.0.1:{server.server_port}"
        yield client.from_server_address(address, True, None, [], retry_invoker=make_simple_http_retry_invoker())
        server.shutdown()


def test_superexec_asks_again_where_superlinks_disk_is_full(asking: RuntimeHttpClient) -> None:
    TaskServer.codes = [500, 500, 500]
    for left in (2, 1, 0, 0):
        assert not asking.AcquireTask(AcquireTaskRequest()).HasField("task")
        assert len(TaskServer.codes) == left


def test_a_heart_goes_on_beating_where_superlinks_disk_is_full() -> None:
    """Flower's heartbeat thread takes what cannot be reached for a miss, and ends at anything else."""

    class Client(FleetHttpClient):
        """Flower's, whose own method stays as it is."""

    keep_heart_beating(Client)
    with ThreadingHTTPServer(("127.0.0.1", 0), TaskServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        TaskServer.codes = [500, 507, 403]
        with Client.from_server_address(f"127.0.0.1:{server.server_port}", True, None, interceptors=[]) as client:
            for refusal in (httpx.TransportError, httpx.TransportError, httpx.HTTPStatusError):
                with pytest.raises(refusal):
                    client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
            assert not client.SendNodeHeartbeat(SendNodeHeartbeatRequest()).success
        server.shutdown()


def test_a_server_apps_heart_beats_on_through_answers_of_5xx() -> None:
    """At the first one Flower's thread ended; the run was taken for dead a minute later."""

    class Client(RuntimeHttpClient):
        """Flower's, whose own method stays as it is."""

    keep_heart_beating(Client, "SendTaskHeartbeat")
    with ThreadingHTTPServer(("127.0.0.1", 0), TaskServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        TaskServer.codes = [500, 507, 401]
        with Client.from_server_address(f"127.0.0.1:{server.server_port}", True, None, interceptors=[]) as client:
            beat = make_task_heartbeat_fn_http(client)
            assert [beat(), beat()] == [False, False]  # tried again
            with pytest.raises(httpx.HTTPStatusError):
                beat()
        server.shutdown()


def test_superexec_ends_where_it_is_refused(asking: RuntimeHttpClient) -> None:
    TaskServer.codes = [404]
    with pytest.raises(httpx.HTTPStatusError):
        asking.AcquireTask(AcquireTaskRequest())
