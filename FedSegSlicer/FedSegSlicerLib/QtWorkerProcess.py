"""The worker as a QProcess: how Slicer runs it."""

import qt
from slicer.i18n import tr as _

from .QtTimer import callLater
from .Signal import Signal
from .WorkerProcess import LineSplitter

CLOSE_MS = 1000
"""Longest wait for a killed process; it is milliseconds in practice."""


class QtWorkerProcess:
    """Runs the worker without ever waiting for it (see WorkerProcessProtocol)."""

    def __init__(self) -> None:
        self.lineReceived = Signal()
        self.logReceived = Signal()
        self.finished = Signal()
        self._splitter = LineSplitter()
        self._process = None

    def start(self, arguments: list[str], environment: dict[str, str]) -> None:
        """See WorkerProcessProtocol."""
        self._splitter = LineSplitter()
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.readyReadStandardOutput.connect(self._onOutput)
        self._process.readyReadStandardError.connect(self._onLog)
        self._process.finished.connect(self._onFinished)
        self._process.errorOccurred.connect(self._onError)
        self._process.start(arguments[0], arguments[1:])

    def write(self, line: bytes) -> None:
        """See WorkerProcessProtocol."""
        if self.isRunning():
            self._process.write(line)

    def stop(self) -> None:
        """See WorkerProcessProtocol."""
        if self.isRunning():
            self._process.kill()

    def close(self) -> None:
        """See WorkerProcessProtocol."""
        self.lineReceived, self.logReceived, self.finished = Signal(), Signal(), Signal()
        if self.isRunning():
            self._process.kill()
            self._process.waitForFinished(CLOSE_MS)

    def isRunning(self) -> bool:
        """See WorkerProcessProtocol."""
        return self._process is not None and self._process.state() != qt.QProcess.NotRunning

    def _onOutput(self, *_args: object) -> None:
        for line in self._splitter.feed(bytes(self._process.readAllStandardOutput().data())):
            self.lineReceived.emit(line)

    def _onLog(self, *_args: object) -> None:
        self.logReceived.emit(bytes(self._process.readAllStandardError().data()).decode("utf-8", "replace"))

    def _onFinished(self, *_args: object) -> None:
        self._onOutput()
        if self._process.exitStatus() == qt.QProcess.CrashExit:
            words = _("it crashed, or was ended from outside, as the system does where memory runs out")
        else:
            words = _("it ended with status {status}").format(status=self._process.exitCode())
        self.finished.emit(words)

    def _onError(self, error: object) -> None:
        # Any other error (a crash, a kill) is followed by ``finished``. The process is not asked: in Qt 5 its ``error``
        # is also a signal. On Windows this comes inside ``start``, when nobody waits for it yet.
        if error == qt.QProcess.FailedToStart:
            callLater(0, lambda: self.finished.emit(_("it could not be started")))
