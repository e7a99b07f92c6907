"""A worker whenever one is needed: started on the first request, greeted, started again after it has gone."""

import logging
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from . import PROTOCOL, VERSION
from .Errors import UserError
from .JsonRpcClient import JsonRpcClient, Progress
from .RuntimeLocator import RuntimeLocator, otherVersionError
from .Signal import Signal
from .WorkerProcess import CallLater, WorkerProcessProtocol

CANCEL_PATIENCE_MS = 1500


class Request:
    """A request of a session: survives until it is answered, and can be cancelled at any time."""

    def __init__(self) -> None:
        self.id: int | None = None
        self.client: JsonRpcClient | None = None
        self.isCancelled = False
        self.isDone = False


class WorkerSession:
    """Runs requests on a worker, which it starts when the first one comes.

    Args:
        locator: says how the worker is started.
        makeProcess: makes a process object (QtWorkerProcess in Slicer).
        callLater: see CallLater.
    """

    _everyOne: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def __init__(
        self, locator: RuntimeLocator, makeProcess: Callable[[], WorkerProcessProtocol], callLater: CallLater
    ) -> None:
        self.locator = locator
        self.started = Signal()
        self.devices: list[str] = ["auto", "cpu"]
        self._makeProcess = makeProcess
        self._callLater = callLater
        self._process: WorkerProcessProtocol | None = None
        self._client: JsonRpcClient | None = None
        self._ending: set[WorkerProcessProtocol] = set()
        self._isOld = False
        self._ungreeted: weakref.WeakSet[JsonRpcClient] = weakref.WeakSet()
        self._log: list[str] = []
        WorkerSession._everyOne.add(self)

    @staticmethod
    def everyOne() -> "list[WorkerSession]":
        """Return all sessions of this Slicer, those of scripts included: their workers run from the same runtime."""
        return list(WorkerSession._everyOne)

    def request(
        self,
        method: str,
        params: dict[str, Any],
        onResult: Callable[[Any], None],
        onError: Callable[[UserError], None],
        onProgress: Callable[[Progress], None] | None = None,
    ) -> Request:
        """Send a request, starting the worker first if there is none; problems of starting go to ``onError``."""
        request = Request()

        def done(callback: Callable[[Any], None]) -> Callable[[Any], None]:
            def call(value: Any) -> None:
                request.isDone = True
                if request.isCancelled:
                    # The worker may have finished before it heard of the cancelling.
                    onError(cancelledError())
                elif request.client in self._ungreeted and getattr(value, "code", "") == "worker.ended":
                    onError(notStartedError())
                else:
                    callback(value)
                self._endIfOld()

            return call

        try:
            request.client = self._runningClient()
        except UserError as error:
            self._callLater(0, lambda error=error: done(onError)(error))
            return request
        request.id = request.client.request(method, params, done(onResult), done(onError), onProgress)
        return request

    def cancel(self, request: Request, patienceMs: int = CANCEL_PATIENCE_MS) -> None:
        """Cancel a request; a worker that does not stop in time is ended, which loses nothing but its start.

        Args:
            request: what is no longer wanted.
            patienceMs: how long the worker has; the user's own cancelling takes two seconds at most.
        """
        if request.isDone or request.isCancelled:
            return
        request.isCancelled = True
        if request.client is not None and request.id is not None:
            request.client.cancel(request.id)

        def endIfOpen() -> None:
            if not request.isDone and request.client is self._client:
                self.stop()

        self._callLater(patienceMs, endIfOpen)

    def stop(self) -> None:
        """End the worker; open requests fail, the next request starts another, also before this one has ended."""
        process, client = self._process, self._client
        self._process = self._client = None
        self._isOld = False
        if process is None or not process.isRunning():
            return
        self._ungreeted.discard(client)  # it is no fault of the runtime's that this one ends
        self._ending.add(process)  # only at its end are its open requests answered
        # Not at once, since a process cannot be destroyed while it tells that it has ended.
        process.finished.connect(lambda _reason: self._callLater(0, lambda: self._ending.discard(process)))
        process.stop()

    def renew(self) -> None:
        """End the worker once nothing is open; the next request after that starts one of the runtime there is then."""
        self._isOld = self._client is not None
        self._endIfOld()

    def close(self) -> None:
        """End the worker for good, and wait the moment that takes; open requests are not answered."""
        for process in (self._process, *self._ending):
            if process is not None:
                process.close()
        self._process = self._client = None
        self._ending.clear()
        self._isOld = False

    def isRunning(self) -> bool:
        """Return whether a worker is running."""
        return self._process is not None and self._process.isRunning()

    def isBusy(self) -> bool:
        """Return whether the worker has something to do, which ``stop`` would fail."""
        return self.isRunning() and self._client is not None and self._client.isBusy()

    def log(self) -> str:
        """Return the last lines the worker logged."""
        return "".join(self._log)

    def _endIfOld(self) -> None:
        if self._isOld and not self.isBusy():
            self.stop()

    def _runningClient(self) -> JsonRpcClient:
        if self._client is not None and self.isRunning():
            return self._client
        arguments, environment = self.locator.arguments(), self.locator.environment()
        process = self._makeProcess()
        process.logReceived.connect(self._onLog)
        client = JsonRpcClient(process)
        self._process, self._client, self._isOld = process, client, False
        self._ungreeted.add(client)
        process.start(arguments, environment)
        client.request(
            "initialize",
            {"client": f"FedSegSlicer {VERSION}", "protocol": PROTOCOL},
            lambda greeting: self._onGreeting(client, greeting),
            self._onNoGreeting,
        )
        return client

    def _onGreeting(self, client: JsonRpcClient, greeting: dict[str, Any]) -> None:
        self._ungreeted.discard(client)
        if client is not self._client:
            return  # of a worker that was ended since
        self.devices = list(greeting["devices"])
        if greeting["protocol"] != PROTOCOL or greeting["version"] != VERSION:
            logging.warning("FedSegSlicer %s met worker %s", VERSION, greeting["version"])
        self.started.emit(versionProblem(greeting))

    def _onNoGreeting(self, error: UserError) -> None:
        # Whoever asked for something gets this error too; here it only goes to the log.
        logging.warning("FedSegSlicer: no worker: %s", error.code)

    def _onLog(self, text: str) -> None:
        self._log = [*self._log[-200:], text]


def versionProblem(greeting: dict[str, Any]) -> UserError | None:
    """Return what is wrong with the worker's versions, None if they are the module's."""
    if greeting["protocol"] == PROTOCOL and greeting["version"] == VERSION:
        return None
    return otherVersionError(greeting["version"])


def notStartedError() -> UserError:
    """Return the error of a runtime whose Python does not get as far as greeting."""
    from slicer.i18n import tr as _

    return UserError(
        "runtime.unusable",
        _("FedSegSlicer's worker could not be started with this runtime."),
        _("Press Repair under Settings, or choose another runtime there."),
    )


def cancelledError() -> UserError:
    """Return the answer to a request the user cancelled."""
    from slicer.i18n import tr as _

    return UserError("cancelled", _("Cancelled."), _("What was finished before stays."))
