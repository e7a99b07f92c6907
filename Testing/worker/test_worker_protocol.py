"""The worker answers every request exactly once, whatever it is sent, and never crashes."""

import io
import json
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import CancelledError, CannotDoHereError
from FedSegCore.worker.channel import LONGEST_LINE, LineChannel
from FedSegCore.worker.jobs import JobQueue, ProgressReporter, as_coded
from FedSegCore.worker.messages import help_anchor
from FedSegCore.worker.methods import InspectParams, Method, Methods
from FedSegCore.worker.server import WorkerServer


class QuietMethods(Methods):
    """The real methods without the idle-time import of torch, and one that waits until it is cancelled."""

    def __init__(self):
        super().__init__()
        self.started = threading.Event()
        self._table["wait"] = Method(InspectParams, slow=self._wait)
        self._table["explode"] = Method(InspectParams, slow=lambda params, progress: 1 / 0)
        self._table["nan"] = Method(InspectParams, slow=lambda params, progress: {"value": float("nan")})

    def warm_up(self):
        pass

    def _wait(self, params, progress):
        self.started.set()
        while True:
            progress.update(0.1, "waiting")
            time.sleep(0.005)


def replies_to(*lines: bytes, methods=None) -> list[dict]:
    """Serve these lines and return everything that came back."""
    target = io.BytesIO()
    WorkerServer(LineChannel(io.BytesIO(b"\n".join(lines) + b"\n"), target), methods or QuietMethods()).serve()
    return [json.loads(line) for line in target.getvalue().splitlines()]


def request(method: str, request_id=1, **params) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


def test_initialize_tells_versions_and_devices():
    (reply,) = replies_to(request("initialize", 7))
    assert reply["id"] == 7
    assert reply["result"]["protocol"] == 1
    assert reply["result"]["devices"][:2] == ["auto", "cpu"]
    assert {"inspect", "releases", "segment", "gin.preview", "shutdown"} <= set(reply["result"]["methods"])


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"not json", -32700),
        (b"\xff\xfe{}", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"null", -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "initialize"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "initialize"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "no.such"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "inspect", "params": {"imag": "x"}}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "segment", "params": {"device": "tpu"}}', -32602),
    ],
)
def test_a_bad_message_gets_an_error_and_the_next_one_its_answer(line, number):
    first, second = replies_to(line, request("initialize", "next"))
    assert first["error"]["code"] == number
    assert set(first["error"]["data"]) == {"code", "cause", "remedy", "help"}
    assert second["id"] == "next"
    assert "result" in second


def test_an_overlong_line_is_refused_whole():
    first, second = replies_to(b'"' + b"a" * (2 * LONGEST_LINE) + b'"', request("initialize", 2))
    assert first["error"]["code"] == -32700
    assert second["id"] == 2


def test_errors_carry_code_cause_remedy_and_page(tmp_path):
    methods = QuietMethods()
    queue_replies = run_until_answered(request("releases", 3, folder=str(tmp_path / "absent")), methods)
    data = queue_replies[-1]["error"]["data"]
    assert data["code"] == "release.no-folder"
    assert data["cause"]
    assert data["remedy"]
    assert data["help"] == "docs/errors.md#releaseno-folder"
    assert str(tmp_path) not in json.dumps(queue_replies)


@pytest.mark.parametrize("method", ["explode", "nan"])
def test_a_fault_of_ours_is_an_error_and_not_the_end(method):
    replies = run_until_answered(request(method, 1, image="x"), QuietMethods(), then=request("initialize", 2))
    by_id = {reply["id"]: reply for reply in replies}
    assert by_id[1]["error"]["data"]["code"] == "worker.failed"
    assert "result" in by_id[2]


class Pipe(io.RawIOBase):
    """Lines that arrive while the server runs."""

    def __init__(self):
        self._lines, self._ready, self._closed = [], threading.Condition(), False

    def put(self, line: bytes) -> None:
        with self._ready:
            self._lines.append(line + b"\n")
            self._ready.notify()

    def hang_up(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify()

    def readline(self, size=-1):
        with self._ready:
            self._ready.wait_for(lambda: self._lines or self._closed, timeout=20)
            return self._lines.pop(0) if self._lines else b""


class Conversation:
    """A server on a thread, and the lines it has answered."""

    def __init__(self, methods):
        self.source, self.target = Pipe(), io.BytesIO()
        self.thread = threading.Thread(target=WorkerServer(LineChannel(self.source, self.target), methods).serve)
        self.thread.start()

    def replies(self):
        return [json.loads(line) for line in self.target.getvalue().splitlines()]

    def wait_for(self, request_id, timeout=10.0):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = [r for r in self.replies() if r.get("id") == request_id]
            if found:
                return found[0]
            time.sleep(0.002)
        raise AssertionError(f"no reply to {request_id}: {self.replies()}")

    def close(self):
        self.source.hang_up()
        self.thread.join(10)
        assert not self.thread.is_alive()


def run_until_answered(line, methods, then=None):
    talk = Conversation(methods)
    try:
        talk.source.put(line)
        talk.wait_for(json.loads(line)["id"])
        if then is not None:
            talk.source.put(then)
            talk.wait_for(json.loads(then)["id"])
        return talk.replies()
    finally:
        talk.close()


def test_cancel_ends_the_running_and_the_waiting_request_at_once():
    methods = QuietMethods()
    talk = Conversation(methods)
    try:
        talk.source.put(request("wait", 1, image="x"))
        assert methods.started.wait(10)
        talk.source.put(request("wait", 2, image="x"))
        talk.source.put(request("initialize", 3))
        talk.wait_for(3)  # the reading thread is not held up by the work
        start = time.monotonic()
        talk.source.put(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}')
        assert talk.wait_for(2)["error"]["code"] == -32800  # answered although request 1 still runs
        talk.source.put(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}')
        reply = talk.wait_for(1)
        assert time.monotonic() - start < 1.0
        assert reply["error"]["code"] == -32800
        assert reply["error"]["data"]["code"] == "cancelled"
        progress = [r for r in talk.replies() if r.get("method") == "$/progress"]
        assert progress
        assert all(set(r["params"]) == {"id", "fraction", "stage", "eta_seconds"} for r in progress)
        assert sum(r.get("id") == 2 for r in talk.replies()) == 1
    finally:
        talk.close()


def test_an_id_that_is_still_open_is_refused():
    methods = QuietMethods()
    talk = Conversation(methods)
    try:
        talk.source.put(request("wait", 1, image="x"))
        assert methods.started.wait(10)
        talk.source.put(request("wait", 1, image="x"))
        assert talk.wait_for(1)["error"]["data"]["code"] == "protocol.id-in-use"
    finally:
        talk.close()


def test_closing_the_input_cancels_and_ends():
    methods = QuietMethods()
    talk = Conversation(methods)
    talk.source.put(request("wait", 1, image="x"))
    assert methods.started.wait(10)
    talk.close()
    assert talk.wait_for(1)["error"]["code"] == -32800


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=10,
)
method_names = st.sampled_from(["initialize", "inspect", "releases", "$/cancelRequest", "nope", ""]) | st.text(
    max_size=9
)
almost_requests = st.fixed_dictionaries(
    {},
    optional={"jsonrpc": st.just("2.0") | json_values, "id": json_values, "method": method_names | json_values,
              "params": json_values},
)  # fmt: skip
fuzz_lines = st.one_of(
    st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")),
    (json_values | almost_requests).map(lambda value: json.dumps(value).encode()),
)


@given(lines=st.lists(fuzz_lines, max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fuzzed_lines_never_silence_the_worker(lines):
    """Whatever came before, the last request is answered; every reply is a well-formed error or result."""
    replies = replies_to(*lines, request("initialize", "the-last"))
    answers = [reply for reply in replies if "method" not in reply]
    assert sum(reply["id"] == "the-last" for reply in answers) >= 1
    for reply in answers:
        assert reply["jsonrpc"] == "2.0"
        assert ("result" in reply) != ("error" in reply)
        if "error" in reply:
            assert reply["error"]["code"] in {-32700, -32600, -32601, -32602, -32000, -32800}


def test_progress_is_rare_and_estimates_what_remains():
    now = [0.0]
    sent = []
    report = ProgressReporter(5, sent.append, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] = step * 0.02
        report(step / 100, "computing")
    params = [message["params"] for message in sent]
    assert len(params) <= 2.0 / 0.1 + 2
    assert params[0]["eta_seconds"] is None
    middle = next(p for p in params if p["fraction"] >= 0.75)
    # 100 steps of 0.02 s: what remains is 2 s x (1 - fraction).
    assert middle["eta_seconds"] == pytest.approx(2.0 * (1 - middle["fraction"]), abs=0.06)
    assert params[-1]["fraction"] == 1.0


def test_faults_of_the_machine_are_named():
    assert as_coded(MemoryError()).code == "memory.full"
    assert as_coded(OSError(28, "No space left on device")).code == "disk.full"
    assert as_coded(ModuleNotFoundError("no monai", name="monai")).code == "runtime.incomplete"
    assert as_coded(KeyError("secret patient")).code == "worker.failed"
    assert "secret" not in as_coded(KeyError("secret patient")).what


def test_help_anchor_is_the_one_github_makes_of_the_heading():
    assert help_anchor("image.four-dimensional") == "docs/errors.md#imagefour-dimensional"


def test_jobs_run_in_order_and_idle_work_runs_once():
    sent, idle = [], []
    jobs = JobQueue(sent.append, when_idle=lambda: idle.append(1))
    for number in range(5):
        assert jobs.add(number, lambda progress, n=number: n * n)
    jobs.close(10)
    assert [message["result"] for message in sent] == [0, 1, 4, 9, 16]
    again = JobQueue(sent.append, when_idle=lambda: idle.append(1))
    time.sleep(1.2)
    again.close(10)
    assert idle == [1]


def test_cancelled_and_coded_errors_keep_their_words():
    sent = []
    jobs = JobQueue(sent.append)

    def cannot(progress):
        raise CannotDoHereError("device.unavailable", "There is no GPU here.", "Choose the CPU.")

    def cancelled(progress):
        raise CancelledError

    jobs.add(1, cannot)
    jobs.add(2, cancelled)
    time.sleep(0.3)
    jobs.close(10)
    assert sent[0]["error"]["data"] == {
        "code": "device.unavailable",
        "cause": "There is no GPU here.",
        "remedy": "Choose the CPU.",
        "help": "docs/errors.md#deviceunavailable",
    }
    assert sent[1]["error"]["code"] == -32800
