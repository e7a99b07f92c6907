"""Installs, checks and removes the runtime through a child process; knows neither Qt nor the scene.

The child (``FedSegCore/runtime/installer.py``, standard library only) is run by Slicer's own Python.
"""

import enum
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import VERSION
from .Background import onThread
from .Errors import UserError
from .RuntimeLocator import (
    RuntimeLocator,
    coreFingerprint,
    currentOf,
    otherCoreError,
    otherVersionError,
    slicerPython,
)
from .RuntimeProblems import problemOf
from .Signal import Signal
from .WorkerProcess import CallLater, WorkerProcessProtocol

CANCEL_PATIENCE_MS = 5000
"""How long the child has to stop pip and tidy up before it is ended; what it leaves is removed the next time."""


class RuntimeState(enum.Enum):
    """How the runtime stands."""

    UNKNOWN = "unknown"
    LOOKING = "looking"
    ABSENT = "absent"
    OUTDATED = "outdated"
    BROKEN = "broken"
    READY = "ready"
    INSTALLING = "installing"
    CHECKING = "checking"
    CANCELLING = "cancelling"
    REMOVING = "removing"

    @property
    def isBusy(self) -> bool:
        """Whether the child is at work."""
        return self in _BUSY


_BUSY = {RuntimeState.LOOKING, RuntimeState.INSTALLING, RuntimeState.CHECKING, RuntimeState.CANCELLING,
         RuntimeState.REMOVING}  # fmt: skip


@dataclass(frozen=True)
class InstallOptions:
    """What the user may choose (see ``FedSegCore.runtime.installer.Order``, whose fields these are)."""

    folder: str
    build: str = "auto"
    wheels: str = ""
    proxy: str = ""
    ca: str = ""


@dataclass(frozen=True)
class Plan:
    """What an installation would do: ``build`` is cpu or cuda; megabytes; whether there is room."""

    build: str
    downloadMb: int
    diskMb: int
    freeMb: int
    fits: bool


class RuntimeInstaller:
    """The runtime's state machine.

    ``changed`` is emitted whenever something a user sees has changed, ``ready`` once after each installation or check,
    ``removed`` after a removal, and ``aged`` where the runtime turns out to be older than what the extension ships.

    Args:
        locator: says whether there is a runtime that will do, and gives the environment for children.
        makeProcess: makes a process object (QtWorkerProcess in Slicer).
        callLater: see CallLater.
        source: folder with the FedSegCore that the extension ships.
    """

    def __init__(
        self,
        locator: RuntimeLocator,
        makeProcess: Callable[[], WorkerProcessProtocol],
        callLater: CallLater,
        source: Path | None = None,
    ) -> None:
        self.changed = Signal()
        self.ready = Signal()
        self.removed = Signal()
        self.aged = Signal()
        self.state = RuntimeState.UNKNOWN
        self.problem: UserError | None = None
        self.plan: Plan | None = None
        self.present: dict[str, Any] = {}
        self.stage = ""
        self.fraction = 0.0
        self.lines: list[str] = []
        self.extraOrder: dict[str, Any] = {}
        self._locator = locator
        self._makeProcess = makeProcess
        self._callLater = callLater
        self._source = source or shippedSource()
        self._process: WorkerProcessProtocol | None = None
        self._condition = RuntimeState.UNKNOWN
        self._hasEnded = True
        self._shipped = ""  # the fingerprint of what the extension ships, once it is known
        self._comparison = 0

    def look(self, options: InstallOptions, fresh: bool = False) -> None:
        """Find out what is there and what an installation would take (``fresh``: see ``install``)."""
        self._start("look", options, RuntimeState.LOOKING, fresh=fresh)

    def install(self, options: InstallOptions, fresh: bool = False) -> None:
        """Install; the former runtime stays in use until the new one was checked.

        Args:
            options: where and what.
            fresh: fetch the packages again even if those that are there would do (repair).
        """
        self._start("install", options, RuntimeState.INSTALLING, fresh=fresh)

    def check(self, options: InstallOptions) -> None:
        """Import in a child what the worker will import."""
        self._start("check", options, RuntimeState.CHECKING)

    def remove(self, options: InstallOptions) -> None:
        """Delete the installed runtime."""
        self._start("remove", options, RuntimeState.REMOVING)

    def cancel(self) -> None:
        """Stop the child and all it started; what was there before stays."""
        if not self.state.isBusy or self.state is RuntimeState.CANCELLING or self._process is None:
            return
        process = self._process
        process.write(b"cancel\n")
        self._set(RuntimeState.CANCELLING)
        self._callLater(CANCEL_PATIENCE_MS, lambda: process.stop() if process.isRunning() else None)

    def close(self) -> None:
        """End the child for good; the widget is about to be destroyed. A half-made runtime is removed the next time."""
        if self._process is not None:
            self._process.close()
            self._process = None
        self._hasEnded = True
        self._comparison += 1

    def logPath(self, options: InstallOptions) -> Path:
        """Return where the last installation's log is."""
        return Path(options.folder) / "install.log"

    def logText(self, options: InstallOptions) -> str:
        """Return the last installation's log, or what was told of it if it could not be written."""
        try:
            return self.logPath(options).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "\n".join(self.lines)

    def assume(self) -> None:
        """Take the state from the files that name the runtime in use; nothing is started."""
        problem = self._locator.problem()
        self.problem = None
        self.present = currentOf(self._locator.installFolder())
        states = {"runtime.other-version": RuntimeState.OUTDATED, "runtime.other-python": RuntimeState.OUTDATED,
                  "runtime.missing": RuntimeState.ABSENT}  # fmt: skip
        state = RuntimeState.READY if problem is None else states.get(problem.code, RuntimeState.BROKEN)
        if problem is not None and problem.code != "runtime.missing":
            self.problem = problem
        self._condition = state
        self._set(state)
        if state is RuntimeState.READY:
            self._compare(self._locator.installed())

    def outdated(self, problem: UserError) -> None:
        """Take note that the worker which answered is of another version."""
        if not self.state.isBusy:
            self.problem, self._condition = problem, RuntimeState.OUTDATED
            self._set(RuntimeState.OUTDATED)

    def refuse(self, problem: UserError) -> None:
        """Tell why something is not begun."""
        self.problem = problem
        self.changed.emit()

    def _start(self, action: str, options: InstallOptions, state: RuntimeState, **more: Any) -> None:
        if self.state.isBusy:
            return
        self.stage, self.fraction, self.lines = "", 0.0, []
        if action != "look":
            self.problem = None
            self._comparison += 1
        order = {"action": action, "source": str(self._source), **asdict(options), **more, **self.extraOrder}
        process = self._makeProcess()
        process.lineReceived.connect(self._onLine)
        process.logReceived.connect(lambda text: self._note(text.rstrip()))
        process.finished.connect(lambda _reason: self._onFinished(process))
        self._process, self._hasEnded = process, False
        script = self._source / "FedSegCore" / "runtime" / "installer.py"
        process.start([slicerPython(), "-B", str(script)], self._locator.environment())
        process.write(json.dumps(order).encode() + b"\n")
        self._set(state)

    def _onLine(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self._note(line.decode("utf-8", "replace"))
            return
        handle = {"looked": self._onLooked, "stage": self._onStage, "ready": self._onReady, "removed": self._onRemoved,
                  "problem": self._onProblem, "cancelled": self._onCancelled}.get(kind)  # fmt: skip
        if handle is not None:
            handle(event)
        else:
            self._note(str(event.get("text", "")))

    def _onStage(self, event: dict[str, Any]) -> None:
        self.stage, self.fraction = event["stage"], event["fraction"]
        isChecking = self.stage == "checking" and self.state is RuntimeState.INSTALLING
        self._set(RuntimeState.CHECKING if isChecking else self.state)

    def _onLooked(self, event: dict[str, Any]) -> None:
        plan = event["plan"]
        self.plan = Plan(plan["build"], plan["download_mb"], plan["disk_mb"], plan["free_mb"], plan["fits"])
        self.present = event["present"] or {}
        if self._condition in (RuntimeState.UNKNOWN, RuntimeState.READY) and event["condition"] == "outdated":
            self._condition = RuntimeState.OUTDATED
        elif event["condition"] == "broken":
            self._condition, self.problem = RuntimeState.BROKEN, self.problem or problemOf("runtime.damaged")
        self._end(self._condition)

    def _onReady(self, event: dict[str, Any]) -> None:
        self.present, self._condition = event["present"], RuntimeState.READY
        self.problem = problemOf(event["note"]) if event.get("note") else None
        if self.present["version"] != VERSION:  # it was checked, and is whole
            self._condition, self.problem = RuntimeState.OUTDATED, otherVersionError(self.present["version"])
        self._end(self._condition)
        self.ready.emit()
        if self._condition is RuntimeState.READY:
            self._compare(self.present)

    def _compare(self, installed: dict[str, Any]) -> None:
        """Find out whether a runtime was made of the FedSegCore that is shipped now: its version may be the same."""
        self._comparison += 1
        number, made = self._comparison, installed.get("core_sha256")
        if not made:
            return

        def done(shipped: str) -> None:
            self._shipped = shipped
            if number == self._comparison and shipped != made and not self.state.isBusy:
                self.outdated(otherCoreError())
                self.aged.emit()

        def failed(error: UserError) -> None:
            logging.warning("FedSegSlicer: %s", error.code)

        if self._shipped:
            done(self._shipped)
        else:
            onThread(
                self._callLater,
                lambda: coreFingerprint(self._source),
                done,
                failed,
                lambda _error: problemOf("runtime.damaged"),
            )

    def _onRemoved(self, _event: dict[str, Any]) -> None:
        self.present, self.plan = {}, None
        self._hasEnded = True
        self.assume()
        self.removed.emit()

    def _onProblem(self, event: dict[str, Any]) -> None:
        self.problem = problemOf(event["code"])
        logging.warning("FedSegSlicer: runtime not installed: %s", event["code"])
        self._end(self._condition)

    def _onCancelled(self, _event: dict[str, Any]) -> None:
        self._end(self._condition)

    def _onFinished(self, process: WorkerProcessProtocol) -> None:
        if process is not self._process or self._hasEnded:
            return
        if self.state is not RuntimeState.CANCELLING:
            self.problem = problemOf("runtime.stopped")
        self._end(self._condition)

    def _end(self, state: RuntimeState) -> None:
        self._hasEnded = True
        self._set(state)

    def _note(self, text: str) -> None:
        if text:
            self.lines = [*self.lines[-500:], text]
            self.changed.emit()

    def _set(self, state: RuntimeState) -> None:
        self.state = state
        self.changed.emit()


def shippedSource() -> Path:
    """Return the folder with FedSegCore: what the extension's package carries, else the checkout this file is in."""
    module = Path(__file__).resolve().parents[1]
    shipped = module / "Resources" / "Runtime"
    return shipped if shipped.is_dir() else module.parent
