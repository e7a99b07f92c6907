"""An event loop and a worker process without Qt, for tests of what does not need it."""

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from FedSegSlicerLib.Signal import Signal


class EventLoop:
    """A loop: runs what other threads post and what is due."""

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
