"""Flower's SuperExec with our own executor: one kind of task, this Python, no script on PATH, no token in ``ps``."""

import argparse
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from FedSegCore.common import quick_start
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent

_NEEDED = {
    "flwr.supercore.superexec.run_superexec": ("run_superexec", "get_executor", "AutoExecPlugin", "RuntimeHttpClient"),
    "flwr.supercore.superexec.plugin.base_exec_plugin": ("AutoExecPlugin",),
    "flwr.supercore.superexec.executor.types": ("LaunchResult",),
    "flwr.supercore.constant": ("TaskType",),
    "flwr.supercore.auth": ("load_superexec_auth_secret",),
    "flwr.proto.runtime_pb2": ("AcquireTaskResponse",),
}
_SERVER_ERROR = 500
_LOOK_S = 0.1

CLAIM_S = 30.0
"""Flower gives a task out anew after this time where nobody has begun with it."""

MOST_STARTING = 2
"""Runners that may be starting at a time."""

_PREFIX = "token-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    process: "subprocess.Popen[bytes]"
    token_file: Path
    since: float

    @property
    def starting(self) -> bool:
        """Whether its runner has not begun with it yet."""
        return self.process.poll() is None and self.token_file.exists()


class PythonExecutor:
    """Starts a task as the runner's process; the token goes in a private file that the runner deletes as it begins.

    Where the computer is so busy that a runner has not begun after ``CLAIM_S``, Flower gives the task out anew. Such a
    runner is ended, and ``MOST_STARTING`` start at a time: else processes in vain would gather until nothing starts
    any more.
    """

    def __init__(self, runner: str, folder: Path, accepted: Any) -> None:
        self._runner = runner
        self._folder = folder
        self._accepted = accepted
        self._tasks: list[_Task] = []

    def get_eligible_capacity(self, supported_task_types: set[Any], **_: Any) -> tuple[set[Any], set[str]]:
        """Accept every supported task, once there is room for another that starts."""
        while sum(task.starting for task in self._tasks) >= MOST_STARTING:
            self.reconcile()
            time.sleep(_LOOK_S)
        return supported_task_types, set()

    def wait_for_capacity(self, *_: Any, **__: Any) -> None:
        """Never wait: see ``get_eligible_capacity``."""

    def launch(self, spec: Any) -> Any:
        """Start the task's process."""
        descriptor, token_file = tempfile.mkstemp(prefix=_PREFIX, dir=self._folder)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(spec.token)
        command = [*quick_start.command(self._runner), "--folder", str(self._folder)]
        command += ["--runtime-api-address", spec.runtime_api_address, "--token-file", token_file]
        if spec.root_certificates_path:
            command += ["--root-certificates", spec.root_certificates_path]
        command += ["--parent-pid", str(os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._tasks.append(_Task(process, Path(token_file), time.monotonic()))
        return self._accepted

    def reconcile(self) -> None:
        """End tasks that have not begun in time, and forget those that have ended, so that no zombies gather."""
        for task in self._tasks:
            if task.starting and time.monotonic() - task.since > CLAIM_S:
                _log.warning("a process did not begin with its task in %.0f s and is ended", CLAIM_S)
                task.process.kill()
                task.process.wait()
            if task.process.poll() is not None:
                task.token_file.unlink(missing_ok=True)
        self._tasks = [task for task in self._tasks if task.process.poll() is None]

    def close(self) -> None:
        """Tasks see for themselves that their parent has gone."""


def forget_tokens(folder: Path) -> None:
    """Delete tokens that runners of an earlier SuperExec were killed too soon to read; there is one a folder."""
    for file in folder.glob(f"{_PREFIX}*"):
        file.unlink(missing_ok=True)


def steady_client(client: type[Any], no_task: Callable[[], Any]) -> type[Any]:
    """Return Flower's client for a SuperExec that lives through its server's trouble, such as a full disk.

    Flower's own ends at the first answer of 5xx; started again it would end again, until nobody starts it any more.

    Args:
        client: Flower's ``RuntimeHttpClient``.
        no_task: makes the answer that there is no task now, at which SuperExec waits a moment and asks again.
    """

    class SteadyClient(client):
        def AcquireTask(self, request: Any) -> Any:  # noqa: N802 - Flower's name
            try:
                return super().AcquireTask(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code < _SERVER_ERROR:
                    raise
                _log.warning("the server is in trouble (%d); asking again", error.response.status_code)
                return no_task()

    return SteadyClient


def run(kind: Literal["CLIENT_APP", "SERVER_APP"], runner: str) -> None:
    """Run SuperExec with this process's command line; never returns normally.

    Args:
        kind: the only kind of task that is taken.
        runner: module that runs such a task.
    """
    arguments = _arguments()
    os.umask(0o077)
    superexec, plugin, types, constant, auth, answers = require_flower(_NEEDED)
    plugin.AutoExecPlugin.supported_task_types = frozenset({constant.TaskType[kind]})
    forget_tokens(arguments.folder)
    executor = PythonExecutor(runner, arguments.folder, types.LaunchResult.accepted())
    superexec.get_executor = lambda *_args, **_kwargs: executor
    superexec.RuntimeHttpClient = steady_client(superexec.RuntimeHttpClient, answers.AcquireTaskResponse)
    follow_parent(arguments.parent_pid)
    superexec.run_superexec(
        runtime_api_address=arguments.runtime_api_address,
        insecure=arguments.root_certificates is None,
        root_certificates_path=arguments.root_certificates,
        superexec_auth_secret=auth.load_superexec_auth_secret(secret_file=arguments.secret_file),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--root-certificates")
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser.parse_args()


def task_arguments() -> argparse.Namespace:
    """Return a runner's command line, with ``token`` read from its file; see ``begin``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--root-certificates", type=Path)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    arguments.token = arguments.token_file.read_text(encoding="ascii")
    return arguments


def begin(arguments: argparse.Namespace) -> None:
    """Tell SuperExec, by deleting the token's file, that everything is imported and the task is begun with."""
    arguments.token_file.unlink(missing_ok=True)
