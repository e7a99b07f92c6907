"""Flower's SuperExec with our own executor: one kind of task, this Python, no script on PATH, no token in ``ps``."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent

_NEEDED = {
    "flwr.supercore.superexec.run_superexec": ("run_superexec", "get_executor", "AutoExecPlugin"),
    "flwr.supercore.superexec.plugin.base_exec_plugin": ("AutoExecPlugin",),
    "flwr.supercore.superexec.executor.types": ("LaunchResult",),
    "flwr.supercore.constant": ("TaskType",),
    "flwr.supercore.auth": ("load_superexec_auth_secret",),
}


class PythonExecutor:
    """Starts a task as ``python -m runner``; the token goes in a private file that the runner deletes."""

    def __init__(self, runner: str, folder: Path, accepted: Any) -> None:
        self._runner = runner
        self._folder = folder
        self._accepted = accepted
        self._tasks: list[subprocess.Popen[bytes]] = []

    def get_eligible_capacity(self, supported_task_types: set[Any], **_: Any) -> tuple[set[Any], set[str]]:
        """Accept every supported task; Flower gives a node one message at a time."""
        return supported_task_types, set()

    def wait_for_capacity(self, *_: Any, **__: Any) -> None:
        """Never wait: see ``get_eligible_capacity``."""

    def launch(self, spec: Any) -> Any:
        """Start the task's process."""
        descriptor, token_file = tempfile.mkstemp(prefix="token-", dir=self._folder)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(spec.token)
        command = [sys.executable, "-P", "-m", self._runner, "--folder", str(self._folder)]
        command += ["--runtime-api-address", spec.runtime_api_address, "--token-file", token_file]
        if spec.root_certificates_path:
            command += ["--root-certificates", spec.root_certificates_path]
        command += ["--parent-pid", str(os.getpid())]
        self._tasks.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return self._accepted

    def reconcile(self) -> None:
        """Forget tasks that have ended, so that no zombies gather."""
        self._tasks = [task for task in self._tasks if task.poll() is None]

    def close(self) -> None:
        """Tasks see for themselves that their parent has gone."""


def run(kind: Literal["CLIENT_APP", "SERVER_APP"], runner: str) -> None:
    """Run SuperExec with this process's command line; never returns normally.

    Args:
        kind: the only kind of task that is taken.
        runner: module that runs such a task.
    """
    arguments = _arguments()
    os.umask(0o077)
    superexec, plugin, types, constant, auth = require_flower(_NEEDED)
    plugin.AutoExecPlugin.supported_task_types = frozenset({constant.TaskType[kind]})
    executor = PythonExecutor(runner, arguments.folder, types.LaunchResult.accepted())
    superexec.get_executor = lambda *_args, **_kwargs: executor
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
    """Return a runner's command line, with ``token`` read from its file, which is deleted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runtime-api-address", required=True)
    parser.add_argument("--root-certificates", type=Path)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    arguments.token = arguments.token_file.read_text(encoding="ascii")
    arguments.token_file.unlink()
    return arguments
