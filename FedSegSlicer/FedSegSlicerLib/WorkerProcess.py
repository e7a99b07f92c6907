"""The worker as a child process, behind a protocol that knows neither Qt nor Slicer."""

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .Signal import Signal

CallLater = Callable[[int, Callable[[], None]], object]
"""``callLater(milliseconds, function)``: in Slicer ``QtTimer.callLater``, without Qt ``EventLoop.callLater``."""


class WorkerProcessProtocol(Protocol):
    """A child process that talks in lines.

    Attributes:
        lineReceived: emitted with each line of its standard output (bytes, without the line end).
        logReceived: emitted with text of its standard error.
        finished: emitted with a reason in words once it has ended, however it ended.
    """

    lineReceived: Signal
    logReceived: Signal
    finished: Signal

    def start(self, arguments: list[str], environment: dict[str, str]) -> None:
        """Start ``arguments[0]`` with the rest; failing to start is told through ``finished``."""

    def write(self, line: bytes) -> None:
        """Write to its standard input without waiting."""

    def stop(self) -> None:
        """End it at once; ``finished`` follows."""

    def close(self) -> None:
        """End it and wait for its end, which takes milliseconds; nothing is told any more."""

    def isRunning(self) -> bool:
        """Return whether it was started and has not ended."""


class LineSplitter:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.rstrip(b"\r") for line in lines]


class EventLoop:
    """A loop for scripts and tests without Qt: runs what other threads post and what is due."""

    def __init__(self) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self._due: list[tuple[float, Callable[[], None]]] = []

    def post(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the loop soon; may be called from any thread."""
        self._posted.put(function)

    def callLater(self, milliseconds: int, function: Callable[[], None]) -> None:
        """Run ``function`` in the loop after a delay."""
        self._due.append((time.monotonic() + milliseconds / 1000, function))

    def runUntil(self, done: Callable[[], bool], timeoutSeconds: float) -> bool:
        """Run until ``done()``; return False if that did not happen in time."""
        end = time.monotonic() + timeoutSeconds
        while not done():
            if time.monotonic() > end:
                return False
            try:
                self._posted.get(timeout=0.01)()
            except queue.Empty:
                self._runDue()
        return True

    def _runDue(self) -> None:
        now = time.monotonic()
        ready = [entry for entry in self._due if entry[0] <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for _, function in ready:
            function()


class SubprocessWorker:
    """The worker without Qt: two threads read, everything is told in the loop."""

    def __init__(self, loop: EventLoop) -> None:
        self.lineReceived = Signal()
        self.logReceived = Signal()
        self.finished = Signal()
        self._loop = loop
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: list[str], environment: dict[str, str]) -> None:
        """See WorkerProcessProtocol."""
        hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
        try:
            self._process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **hidden,
            )
        except OSError as error:
            reason = type(error).__name__
            self._loop.post(lambda: self.finished.emit(f"it could not be started ({reason})"))
            return
        threading.Thread(target=self._readLines, args=(self._process,), daemon=True).start()
        threading.Thread(target=self._readLog, args=(self._process,), daemon=True).start()

    def write(self, line: bytes) -> None:
        """See WorkerProcessProtocol."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):
            # It has just ended (and its pipe may be closed); ``finished`` is on its way and says so.
            return

    def stop(self) -> None:
        """See WorkerProcessProtocol."""
        if self.isRunning():
            self._process.kill()

    def close(self) -> None:
        """See WorkerProcessProtocol."""
        self.lineReceived, self.logReceived, self.finished = Signal(), Signal(), Signal()
        if self.isRunning():
            self._process.kill()
            self._process.wait()

    def isRunning(self) -> bool:
        """See WorkerProcessProtocol."""
        return self._process is not None and self._process.poll() is None

    def _readLines(self, process: "subprocess.Popen[bytes]") -> None:
        for line in process.stdout:
            self._loop.post(lambda line=line: self.lineReceived.emit(line.rstrip(b"\r\n")))
        code = process.wait()
        with contextlib.suppress(OSError):  # what could not be written any more has nobody to read it
            process.stdin.close()
        self._loop.post(lambda: self.finished.emit(f"it ended with status {code}"))

    def _readLog(self, process: "subprocess.Popen[bytes]") -> None:
        for line in process.stderr:
            self._loop.post(lambda line=line: self.logReceived.emit(line.decode("utf-8", "replace")))
