"""Child processes of a role: started without a shell, kept together, stopped as whole trees, never orphaned."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import FedSegCore
from FedSegCore.common import quick_start

TASK_POLL_VARIABLE = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
"""How often a SuperExec asks whether there is something to run (environment variable, seconds)."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PARENT_POLL_S = 0.5
_LAST_WORDS_S = 10.0


def without_proxy(environment: Mapping[str, str], hosts: Sequence[str] = ("127.0.0.1", "localhost", "::1")) -> str:
    """Return what NO_PROXY must be for ``hosts`` to be reached directly: what it is under both its names, and these."""
    told = [entry.strip() for name in ("no_proxy", "NO_PROXY") for entry in environment.get(name, "").split(",")]
    return ",".join(dict.fromkeys(entry for entry in (*told, *hosts) if entry))


def child_environment(home: Path, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a Flower process: nothing leaves the machine but what the federation sends.

    Args:
        home: the role's private Flower folder.
        threads: CPU threads the child may compute with; None leaves it to the libraries.
    """
    no_proxy = without_proxy(os.environ)
    package_root = str(Path(FedSegCore.__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(home),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # A site's SuperExec asks on loopback only, so it may ask often; this saves a quarter of a second a message.
        TASK_POLL_VARIABLE: "0.5",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
    }
    if threads is not None:
        environment |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return environment


@dataclass(frozen=True)
class Child:
    """How to start one child.

    Attributes:
        name: what people read (``"SuperNode"``).
        module: Python module whose ``main`` is run.
        arguments: its command line; no secrets, since other users can read it.
        environment: its whole environment.
        log: file its output is appended to.
    """

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it in a session of its own, so that Ctrl+C reaches the parent only, which then stops in order."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(
                [*quick_start.command(self.module), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.log.parent,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        finally:
            os.close(descriptor)


class Restarts:
    """Whether a child that ended is worth another start: not after several that ended soon after they began.

    Args:
        most: starts in a row that may end soon.
        soon_s: what counts as soon.
    """

    def __init__(self, most: int = 5, soon_s: float = 60.0) -> None:
        self._most = most
        self._soon_s = soon_s
        self._in_a_row = 0
        self._since = -soon_s

    def started(self) -> None:
        """Note a start."""
        now = time.monotonic()
        self._in_a_row = self._in_a_row + 1 if now - self._since < self._soon_s else 1
        self._since = now

    def exhausted(self) -> bool:
        """Return whether the last starts all ended soon."""
        return self._in_a_row >= self._most and time.monotonic() - self._since < self._soon_s


def stop_trees(roots: Iterable["subprocess.Popen[bytes]"], grace_s: float = 6.0) -> None:
    """Stop processes with everything they started: asked first, killed after ``grace_s``; by id only."""
    running = [root for root in roots if root.poll() is None]
    family = _families(running)
    for root in running:
        root.terminate()
    stubborn = _still_alive(family, grace_s)
    # Looked up once more: a process may have started another while it was being stopped.
    late = {child for process in stubborn for child in _children(process)}
    for process in {*stubborn, *late}:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    for root in running:
        root.wait()
    _still_alive([*stubborn, *late], grace_s)


def _still_alive(family: Sequence[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Wait until all have ended and return those that have not; zombies count as ended, whoever should reap them."""
    deadline = time.monotonic() + limit_s
    alive = [process for process in family if _alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [process for process in alive if _alive(process)]
    return alive


def _families(roots: Sequence["subprocess.Popen[bytes]"]) -> list[psutil.Process]:
    family: list[psutil.Process] = []
    for root in roots:
        try:
            process = psutil.Process(root.pid)
        except psutil.NoSuchProcess:
            continue
        family += [process, *_children(process)]
    return family


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def follow_parent(pid: int) -> None:
    """End this process when process ``pid`` has ended, however that came about."""
    try:
        parent = psutil.Process(pid)
    except psutil.NoSuchProcess:
        raise SystemExit(1) from None

    def watch() -> None:
        while _alive(parent):
            time.sleep(_PARENT_POLL_S)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(_LAST_WORDS_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def end_with(main: Callable[[], None]) -> None:
    """Run ``main`` and end this process soon after it, whatever threads are left.

    Python waits for them, and Flower may leave one that never ends: a SuperNode whose connection was cut in a handshake
    had taken its leave but stayed, so that nobody started it anew. What is still being sent has ten seconds.
    """
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    finally:
        threading.Thread(target=_end_anyway, args=(code,), name="end", daemon=True).start()


def _end_anyway(code: int) -> None:
    time.sleep(_LAST_WORDS_S)
    os._exit(code)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_ports(count: int) -> list[int]:
    """Return ``count`` different TCP ports that nothing listens on at 127.0.0.1 just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(listening.getsockname()[1]) for listening in sockets]
    finally:
        for listening in sockets:
            listening.close()
