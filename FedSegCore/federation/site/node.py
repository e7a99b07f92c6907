"""A site's three processes, kept alive: trainer, SuperNode, and the SuperExec that answers its messages."""

import json
import os
import re
import subprocess
import time
from enum import StrEnum
from typing import Any

from FedSegCore.common.errors import CannotDoHereError, FedSegError
from FedSegCore.federation.log_tail import LogTail
from FedSegCore.federation.process_group import Child, Restarts, child_environment, free_ports
from FedSegCore.federation.site.folder import SiteFolder

_RETRY_S = 5.0

_SUPERNODE_WORDS = (
    (re.compile(r"SuperNode ID: \d+"), "connected to the federation"),
    (re.compile(r"Receiving: \w*train"), "a round has begun"),
    (re.compile(r"Sent successfully"), "the answer was sent"),
    (re.compile(r"Failed to (receive|send) message"), "a message was lost on the way"),
)


class SiteState(StrEnum):
    """How a site stands."""

    STARTING = "starting"
    CONNECTED = "connected"
    RETRYING = "retrying"
    ENDED = "ended"


class SiteProcesses:
    """Starts a site's processes and starts again what ends; the owner calls ``tick`` a few times a second.

    Attributes:
        state: how the site stands.
        error: why the site cannot go on, once ``state`` is ENDED.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self.state = SiteState.STARTING
        self.error: FedSegError | None = None
        self._folder = folder
        self._tail = LogTail(folder.logs / "supernode.log", from_end=True)
        self._recent: list[str] = []
        self._trainer: subprocess.Popen[bytes] | None = None
        self._trainer_starts = Restarts()
        self._supernode: subprocess.Popen[bytes] | None = None
        self._superexec: subprocess.Popen[bytes] | None = None
        self._supernode_address = ""
        self._next_start = 0.0

    def start_trainer(self) -> None:
        """Start the trainer, which takes longest, before there is anything to connect to."""
        self._folder.empty_run()
        self._trainer = self._child("trainer", "trainer_process", threads=True).start()
        self._trainer_starts.started()

    def processes(self) -> list["subprocess.Popen[bytes]"]:
        """Return the running children, for ``stop_trees``."""
        children = (self._supernode, self._superexec, self._trainer)
        return [child for child in children if child is not None]

    @property
    def trainer_pid(self) -> int | None:
        """Process id of the trainer."""
        return None if self._trainer is None else self._trainer.pid

    @property
    def supernode_pid(self) -> int | None:
        """Process id of the SuperNode."""
        return None if self._supernode is None else self._supernode.pid

    def progress(self) -> dict[str, Any]:
        """Return what the trainer is doing: ``state``, ``fraction``, ``stage``; empty while it starts."""
        try:
            told = json.loads(self._folder.progress.read_bytes())
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def tick(self) -> list[str]:
        """Look after the processes and return what there is to tell people, in words."""
        if self.state is SiteState.ENDED:
            return []
        news = self._read_log()
        news += self._keep_trainer()
        news += self._keep_supernode()
        self._keep_superexec()
        return news

    def _read_log(self) -> list[str]:
        lines = self._tail.lines()
        self._recent = [*self._recent, *lines][-200:]
        news = [words for line in lines for pattern, words in _SUPERNODE_WORDS if pattern.search(line)]
        if _SUPERNODE_WORDS[0][1] in news:
            self.state = SiteState.CONNECTED
        return news

    def _keep_trainer(self) -> list[str]:
        if self._trainer is None:
            self.start_trainer()
            return ["the trainer is starting"]
        code = self._trainer.poll()
        if code is None:
            return []
        if self._trainer_starts.exhausted():
            self._end("site.trainer", "The trainer ended again and again.", "Read logs/trainer.log in its folder.")
            return ["the trainer cannot be kept running"]
        self._trainer_starts.started()
        self._folder.forget_trainer()
        self._trainer = self._child("trainer", "trainer_process", threads=True).start()
        return [f"the trainer ended (code {code}) and is started again"]

    def _keep_supernode(self) -> list[str]:
        if self._supernode is not None:
            code = self._supernode.poll()
            if code is None:
                return []
            self._supernode = None
            self._stop_superexec()
            self._next_start = time.monotonic() + _RETRY_S
            return self._explain_end(code)
        if time.monotonic() >= self._next_start and self.state is not SiteState.ENDED:
            self._start_supernode()
        return []

    def _start_supernode(self) -> None:
        (port,) = free_ports(1)
        self._supernode_address = f"127.0.0.1:{port}"
        self._recent = []
        self._supernode = self._child("supernode", "supernode", "--port", str(port)).start()

    def _keep_superexec(self) -> None:
        if self._supernode is None or (self._superexec is not None and self._superexec.poll() is None):
            return
        self._superexec = self._child(
            "superexec",
            "superexec",
            *("--runtime-api-address", self._supernode_address),
            *("--secret-file", str(self._folder.superexec_secret)),
        ).start()

    def _stop_superexec(self) -> None:
        # A client app that is at work sees its parent end and follows.
        if self._superexec is not None and self._superexec.poll() is None:
            self._superexec.terminate()
            self._superexec.wait()
        self._superexec = None

    def _explain_end(self, code: int) -> list[str]:
        """Say why SuperNode ended, and decide whether it is worth another start (FLOWER's exit codes)."""
        self._read_log()
        text = "\n".join(self._recent)
        if code == 0:
            self._end("site.expelled", "The coordinator no longer knows this site.", "Ask the coordinator.")
            return ["the coordinator has shut this site out"]
        if "CERTIFICATE_VERIFY_FAILED" in text:
            self._end(
                "site.wrong-certificate",
                "The coordinator does not show the certificate that this site trusts.",
                "Check the address, the clock, and that ca.crt is the coordinator's.",
            )
            return ["the coordinator's certificate is not the one this site trusts"]
        if "Exit Code: 302" in text:
            self._end("site.key", "The site's key cannot be used.", "Set the site up again.")
            return ["the site's key cannot be used"]
        self.state = SiteState.RETRYING
        if "Exit Code: 305" in text:
            return ["not admitted yet, or connected a moment ago (this can last a minute); trying again"]
        return [f"the connection's process ended (code {code}) and is started again"]

    def _end(self, code: str, what: str, remedy: str) -> None:
        self.state = SiteState.ENDED
        self.error = CannotDoHereError(code, what, remedy)

    def _child(self, name: str, module: str, *arguments: str, threads: bool = False) -> Child:
        folder = self._folder
        return Child(
            name=name,
            module=f"FedSegCore.federation.site.{module}",
            arguments=("--folder", str(folder.path), "--parent-pid", str(os.getpid()), *arguments),
            environment=child_environment(folder.flower_home, folder.settings().threads if threads else 1),
            log=folder.logs / f"{name}.log",
        )
