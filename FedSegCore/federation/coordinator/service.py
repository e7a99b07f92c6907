"""The coordinator's two processes, kept alive: SuperLink, and the SuperExec that runs server apps."""

import os
import subprocess

from filelock import FileLock, Timeout

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.events import RUNS_VARIABLE
from FedSegCore.federation.process_group import TASK_POLL_VARIABLE, Child, Restarts, child_environment, stop_trees

_NAMES = ("superlink", "superexec")
_RUN_POLL_S = "2.0"  # a new run may wait for that; each question costs SuperLink about 25 ms


class CoordinatorProcesses:
    """Starts SuperLink and SuperExec and starts again what ends; the owner calls ``tick`` a few times a second.

    Runs survive a SuperLink that is back within a minute: they live in the database and in SuperExec's server app.

    Args:
        folder: the coordinator.
    """

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = {name: Restarts() for name in _NAMES}
        self._waiting: set[str] = set()
        self._alone = FileLock(folder.path / "coordinator.lock", mode=0o600, thread_local=False)

    def start(self) -> None:
        """Start both; ``ControlClient.wait_until_up`` tells when SuperLink answers.

        Raises:
            CannotDoHereError: ``coordinator.already-running``.
        """
        try:
            self._alone.acquire(timeout=0)
        except Timeout as error:
            raise CannotDoHereError(
                "coordinator.already-running",
                "This coordinator is serving already.",
                "Use the one that runs, or end it first.",
            ) from error
        for name in _NAMES:
            self._start(name)

    def tick(self) -> list[str]:
        """Start again what has ended and say so.

        Raises:
            CannotDoHereError: ``coordinator.ended``: a process ends again and again (a port in use, a full disk).
        """
        news = []
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            if self._starts[name].exhausted():
                raise CannotDoHereError(
                    "coordinator.ended",
                    f"The coordinator's {name} cannot be kept running.",
                    f"Read logs/{name}.log in its folder; often its port is in use.",
                )
            try:
                self._start(name)
            except OSError as error:
                # no room for a log, or no process to be had: tried again at the next tick, and told once
                reason = error.strerror or type(error).__name__
                news += [] if name in self._waiting else [f"{name} ended and cannot be started now ({reason})"]
                self._waiting.add(name)
                continue
            self._waiting.discard(name)
            news.append(f"{name} ended (code {code}) and is started again")
        return news

    def close(self) -> None:
        """Stop both."""
        stop_trees(self.processes())
        self._alone.release()

    def processes(self) -> list["subprocess.Popen[bytes]"]:
        """Return the running children, for ``stop_trees``."""
        return list(self._children.values())

    def pid(self, name: str) -> int:
        """Return the process id of ``"superlink"`` or ``"superexec"``."""
        return self._children[name].pid

    def _start(self, name: str) -> None:
        folder = self._folder
        arguments = ["--folder", str(folder.path), "--parent-pid", str(os.getpid())]
        if name == "superexec":
            address = f"127.0.0.1:{folder.settings().control_port}"
            arguments += ["--runtime-api-address", address, "--secret-file", str(folder.superexec_secret)]
            arguments += ["--root-certificates", str(folder.authority_certificate)]
        self._children[name] = Child(
            name=name,
            module=f"FedSegCore.federation.coordinator.{name}",
            arguments=arguments,
            environment={
                **child_environment(folder.flower_home, 1),
                RUNS_VARIABLE: str(folder.runs),
                TASK_POLL_VARIABLE: _RUN_POLL_S,
            },
            log=folder.logs / f"{name}.log",
        ).start()
        self._starts[name].started()
