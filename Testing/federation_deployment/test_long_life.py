"""What must not end, block or fool a role that runs for months: full disks, two starts at once, leftovers, readers."""

import asyncio
import errno
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from pretend_network import listener, read_request
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from tiny_deployment import alive

from FedSegCore.cli import output
from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.files import write_text
from FedSegCore.federation import superexec
from FedSegCore.federation.coordinator import superlink
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.coordinator.service import CoordinatorProcesses
from FedSegCore.federation.log_tail import LARGEST_LOG
from FedSegCore.federation.process_group import child_environment, free_ports
from FedSegCore.federation.site import control
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.state import site_state
from FedSegCore.federation.site.status import ProcessesState, read_status
from FedSegCore.federation.site.trainer_keeper import wanted_settings
from FedSegCore.federation.site.trainer_server import _gone
from FedSegCore.federation.superexec import forget_tokens


def test_the_coordinators_own_calls_go_past_every_proxy_and_the_environment_stays_as_it_is(
    coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others in this process may need their proxies; a status page asks every minute for months."""
    called: list[bytes] = []
    with listener(lambda connection: called.append(read_request(connection))) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        # where both names are there, the one in lower case counts
        monkeypatch.setenv("NO_PROXY", "one.example")
        monkeypatch.setenv("no_proxy", "two.example")
        before, seen = dict(os.environ), set()
        for _ in range(3):
            with ControlClient(coordinator) as control, pytest.raises(CannotDoHereError, match="not-running"):
                control.runs()
            assert dict(os.environ) == before
            seen.add(child_environment(coordinator.path)["no_proxy"])
    assert seen == {"two.example,one.example,127.0.0.1,localhost,::1"}
    assert called == []


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that stands for one that is well."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@contextmanager
def no_room() -> Iterator[None]:
    """Let this process write nothing to files, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_does_not_end_who_looks_after_a_site(site: SiteFolder, sleeper: "subprocess.Popen[bytes]") -> None:
    processes = SiteProcesses(site)
    processes._trainer.process = processes._supernode = processes._superexec = sleeper
    processes._trainer._settings = wanted_settings(site)
    processes._next_cut = 0.0
    (site.logs / "supernode.log").write_text("SuperNode ID: 17\n")
    with no_room():
        for _ in range(3):
            processes.tick()
        assert read_status(site) is None
    processes.tick()
    told = read_status(site)
    assert told is not None
    assert told.processes == ProcessesState.CONNECTED


def test_no_log_of_a_site_grows_without_bound(site: SiteFolder) -> None:
    """Also what the process that was started in the background prints, a line every few seconds."""
    logs = [site.logs / f"{name}.log" for name in ("run", "trainer", "supernode", "superexec")]
    for log in logs:
        log.write_bytes(b"x" * (LARGEST_LOG + 1))
    control.pause(site)
    processes = SiteProcesses(site)
    processes._next_cut = 0.0
    processes.tick()
    assert [log.stat().st_size for log in logs] == [0] * 4


def test_a_site_goes_on_trying_where_its_computer_cannot_start_anything(site: SiteFolder) -> None:
    """Without a folder for its logs no child can be started; that is neither the end nor a child that ended soon."""
    processes = SiteProcesses(site)
    shutil.rmtree(site.logs)
    told = [words for _ in range(12) for words in processes.tick()]
    assert told == ["this computer cannot start what the site needs; trying again"]
    assert processes.state is not ProcessesState.ENDED
    assert site_state(site).code == "site.computer"
    site.logs.mkdir(mode=0o700)
    try:
        assert "the trainer is starting" in processes.tick()
        assert site_state(site).code == ""
    finally:
        processes.close()


def test_a_coordinator_goes_on_trying_where_its_computer_cannot_start_anything(coordinator: CoordinatorFolder) -> None:
    processes = CoordinatorProcesses(coordinator)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    processes._children = {"superexec": ended}
    shutil.rmtree(coordinator.logs)
    told = [words for _ in range(12) for words in processes.tick()]
    assert [words.partition(" (")[0] for words in told] == ["superexec ended and cannot be started now"]
    coordinator.logs.mkdir(mode=0o700)
    try:
        assert processes.tick() == ["superexec ended (code 0) and is started again"]
    finally:
        processes.close()


@pytest.mark.slow
def test_children_end_when_their_parent_is_killed(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    fleet, control = free_ports(2)
    settings = CoordinatorSettings(
        federation="orphans", hosts=("localhost",), fleet_host="127.0.0.1", fleet_port=fleet, control_port=control
    )
    CoordinatorFolder.create(tmp_path / "coordinator", settings)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from FedSegCore.federation.coordinator.folder import CoordinatorFolder\n"
        "from FedSegCore.federation.coordinator.service import CoordinatorProcesses\n"
        "CoordinatorProcesses(CoordinatorFolder.open(Path(sys.argv[1]))).start(); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "coordinator")]
    with subprocess.Popen(command, env=child_environment(tmp_path)) as parent:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", fleet)) == 0, 60.0)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) == 2
        parent.kill()

    try:
        wait_until(lambda: not alive(children), 20.0)
    finally:
        for process in alive(children):
            process.kill()


def test_a_coordinator_serves_once(coordinator: CoordinatorFolder) -> None:
    """A second one would take the first one's tasks, and could not serve them."""
    first, second = CoordinatorProcesses(coordinator), CoordinatorProcesses(coordinator)
    first.start()
    try:
        with pytest.raises(CannotDoHereError, match=r"coordinator\.already-running"):
            second.start()
        assert second.processes() == []
    finally:
        first.close()


def test_of_two_that_start_a_site_at_once_one_does(site: SiteFolder) -> None:
    """Neither has written its status yet."""
    control.pause(site)
    first, second = SiteProcesses(site), SiteProcesses(site)
    first.start_trainer()
    with pytest.raises(CannotDoHereError, match=r"site\.already-running"):
        second.start_trainer()
    first.close()
    second.start_trainer()
    second.close()


def test_tokens_that_nobody_read_do_not_gather(tmp_path: Path) -> None:
    (tmp_path / "token-abc").write_text("secret")
    (tmp_path / "tokens.md").write_text("mine")
    forget_tokens(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.md"]


SLOW_RUNNER = """
import time
from FedSegCore.federation.superexec import begin, task_arguments
def main():
    arguments = task_arguments()
    while not (arguments.folder / "may-begin").exists():
        time.sleep(0.02)
    begin(arguments)
    time.sleep(600)
"""


def test_processes_that_start_too_slowly_do_not_gather(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """Flower gives a task out anew every half a minute; on a computer so busy that nothing begins by then, too."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "slow_runner.py").write_text(SLOW_RUNNER)
    monkeypatch.setenv("PYTHONPATH", child_environment(tmp_path)["PYTHONPATH"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=os.pathsep)
    executor = superexec.PythonExecutor("slow_runner", tmp_path, "accepted")
    task = SimpleNamespace(token="secret", runtime_api_address="127.0.0.1:1", root_certificates_path=None)

    def children() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE and _slow(p)]

    monkeypatch.setattr(superexec, "CLAIM_S", 0.3)
    for _ in range(6):
        executor.reconcile()
        assert executor.get_eligible_capacity({"CLIENT_APP"}) == ({"CLIENT_APP"}, set())
        assert executor.launch(task) == "accepted"
        assert len(children()) <= superexec.MOST_STARTING
    monkeypatch.setattr(superexec, "CLAIM_S", 60.0)
    (tmp_path / "may-begin").touch()
    try:
        # those that have begun leave room for others, however long they work
        for _ in range(3):
            executor.get_eligible_capacity({"CLIENT_APP"})
            executor.launch(task)
        wait_until(lambda: not list(tmp_path.glob("token-*")), 60.0)
        assert len(children()) > superexec.MOST_STARTING
    finally:
        for process in children():
            process.kill()
    wait_until(lambda: executor.reconcile() or executor._tasks == [], 10.0)
    assert list(tmp_path.glob("token-*")) == []


def _slow(process: psutil.Process) -> bool:
    try:
        return "slow_runner" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


@pytest.mark.skipif(os.name == "nt", reason="needs a Unix socket")
def test_a_trainers_leftovers_are_its_socket_and_nothing_that_a_damaged_file_names(
    site: SiteFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("s")
    own, foreign = place / "fedseg-own", place / "fedseg-images"
    for folder in (own, foreign):
        folder.mkdir()
    (foreign / "image.nii").write_text("a patient")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(own / "trainer"))
    for address in (own / "trainer", foreign / "image.nii", foreign / "trainer"):
        site.trainer_address.write_text(f'{{"address": "{address}", "key": "00", "pid": 1}}')
        site.forget_trainer()
        assert not site.trainer_address.exists()
    assert sorted(path.name for path in place.rglob("*")) == ["fedseg-images", "image.nii"]


def test_who_sent_an_order_and_has_gone_is_noticed_however_the_system_says_it() -> None:
    ours, theirs = Pipe()
    with ours:
        assert not _gone(ours)
        theirs.close()
        assert _gone(ours)
    # as a named pipe does, a closed connection raises
    assert _gone(ours)


def test_a_reader_of_the_old_file_keeps_no_new_one_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows nobody can put a file in the place of one that is open, which every reader ends soon."""
    target = tmp_path / "status.json"
    write_text(target, "old")
    replace, refused = Path.replace, []

    def busy(self: Path, other: Path) -> Path:
        if len(refused) < 3:
            refused.append(other)
            raise PermissionError(13, "in use")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", busy)
    write_text(target, "new")
    assert (target.read_text(), len(refused)) == ("new", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_journal_that_is_being_written_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", max_file_bytes=2000)
    journal.append(Refused(code="gate.norm"))
    writing = threading.Thread(target=lambda: [journal.append(Refused(code="gate.norm")) for _ in range(150)])
    writing.start()
    while writing.is_alive():
        assert journal.verify().whole
        assert len(list(journal.lines())) >= 1
    writing.join()
    assert journal.verify().entries == 151


def test_a_request_is_not_read_beyond_a_bound_whoever_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower reads a whole body before it asks for a signature; the app here reads one as Flower does."""
    monkeypatch.setattr(superlink, "MOST_BODY_BYTES", 1000)
    read: list[int] = []

    async def flower(scope: superlink.Scope, receive: superlink.Receive, send: superlink.Send) -> None:
        try:
            read.append(len(await Request(scope, receive).body()))
        except ClientDisconnect:
            read.append(-1)
        await Response(b"read")(scope, receive, send)

    async def posted(content: bytes | AsyncIterator[bytes], path: str = "/v1/fleet/push-object") -> int:
        transport = httpx.ASGITransport(superlink.FleetOnly(flower))
        async with httpx.AsyncClient(transport=transport, base_url="https://coordinator.example") as client:
            return (await client.post(path, content=content)).status_code

    async def in_pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(100)

    async def ask() -> list[int]:
        told = [await posted(bytes(size)) for size in (1000, 1001)]
        return [*told, await posted(in_pieces(10)), await posted(in_pieces(11)), await posted(b"", "/v1/control/x")]

    assert asyncio.run(ask()) == [200, 413, 200, 200, 404]
    assert read == [1000, 1000, -1]


class FullDisk(io.StringIO):
    """A log on a disk that refuses with ``number``."""

    number = errno.ENOSPC

    def write(self, _: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_words_that_find_no_room_end_nobody() -> None:
    """A site in the background prints into its own folder."""
    full = FullDisk()
    console = type(output.console)(file=full)
    console.print("the answer was sent")
    console.print("again")
    full.number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        console.print("something else is wrong")
