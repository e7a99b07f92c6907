"""A site's three processes, kept alive: trainer, SuperNode, and the SuperExec that answers its messages."""

import json
import os
import re
import subprocess
import time
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout

from FedSegCore.common.errors import CannotDoHereError, FedSegError
from FedSegCore.federation.log_tail import LogTail, cut_log
from FedSegCore.federation.process_group import free_ports, stop_trees
from FedSegCore.federation.site.admission import keep_node_id, known_node_id
from FedSegCore.federation.site.children import site_child
from FedSegCore.federation.site.control import Halt, halt_now
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.status import ProcessesState, SiteStatus, read_status, this_process, write_status
from FedSegCore.federation.site.trainer_keeper import TrainerKeeper

_RETRY_S = 5.0
_LOCK_S = 1.0  # who only asks whether it is held holds it for an instant
_CUT_EVERY_S = 60.0
_RARE_RETRY_S, _TRIES = 30.0, 15
"""Each try costs two seconds of a core: after so many, in two minutes, a site that waits for days tries less often."""
_COMPUTER, _CERTIFICATE = "site.computer", "site.wrong-certificate"

HALT_LIMIT_S = 30.0
"""A site that is paused stops its processes after this time also where the coordinator could not be told."""
_FETCH_S = 4.0  # SuperLink gives no answer of a node that has gone; server apps ask every three seconds
SHUT_OUT_S = 75.0
"""A site that the coordinator refuses, and goes on refusing for this long, has been shut out for good."""

_SUPERNODE_WORDS = (
    (re.compile(r"SuperNode ID: \d+"), "connected to the federation"),
    (re.compile(r"Receiving: \w*train"), "a round has begun"),
    (re.compile(r"Sent successfully"), "the answer was sent"),
    (re.compile(r"Failed to (receive|send) message"), "a message was lost on the way"),
    (re.compile(r"Connection attempt failed"), "the coordinator cannot be reached; trying again"),
    (re.compile(r"Connection successful"), "connected again"),
)
_CONNECTED, _LOST, _BACK = (_SUPERNODE_WORDS[n][1] for n in (0, 4, 5))
_MESSAGE_CAME = re.compile(r"Receiving: \w+")
_MESSAGE_DONE = re.compile(r"Sent successfully|Failed to (receive|send) message|Ignoring")


def _runs_already() -> CannotDoHereError:
    return CannotDoHereError(
        "site.already-running", "This site is running already.", "Use the one that runs, or end it first."
    )


class SiteProcesses:
    """Starts a site's processes and starts again what ends; the owner calls ``tick`` a few times a second.

    What people want of the site (``site.control``) is looked up at every tick. While it is paused nothing runs: the
    trainer gives its round up, the coordinator is told by a code, and SuperNode takes its leave.

    Attributes:
        state: how the site stands.
        error: why the site cannot go on, once ``state`` is ENDED; None where it left the federation.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self.state = ProcessesState.STARTING
        self.error: FedSegError | None = None
        self._folder = folder
        self._tail = LogTail(folder.logs / "supernode.log", from_end=True)
        self._recent: list[str] = []
        self._trainer = TrainerKeeper(folder)
        self._supernode: subprocess.Popen[bytes] | None = None
        self._superexec: subprocess.Popen[bytes] | None = None
        self._supernode_address = ""
        self._next_start, self._ended_in_row = 0.0, 0
        self._next_cut = time.monotonic() + _CUT_EVERY_S
        self._halt: Halt | None = None
        self._halted_since = self._fetched_by = 0.0
        self._in_hand = 0  # messages that came and are not answered yet: they may overlap
        self._in_session = False
        self._trouble: FedSegError | None = None
        self._refused_since: float | None = None
        before = read_status(folder)
        self._was_connected = before is not None and before.was_connected
        self._last_message = None if before is None else before.last_message
        self._told: SiteStatus | None = None
        self._alone = FileLock(folder.process_lock, mode=0o600, thread_local=False)

    def start_trainer(self) -> None:
        """Start the trainer, which takes longest, before there is anything to connect to.

        Raises:
            CannotDoHereError: ``site.already-running``.
        """
        before = read_status(self._folder)
        if (
            before is not None
            and before.pid != os.getpid()
            and before.processes != ProcessesState.ENDED
            and before.alive
        ):
            raise _runs_already()
        try:
            # held as long as this process looks after the site: two that start at once both find no status yet
            self._alone.acquire(timeout=_LOCK_S)
        except Timeout as error:
            raise _runs_already() from error
        self._folder.empty_run()
        self._halt = halt_now(self._folder)
        if self._halt is None:
            self._trainer.start()

    def close(self) -> None:
        """Stop all processes and say so in the site's status."""
        self._stop_all()
        self.state = ProcessesState.ENDED
        self._trouble = None
        self._tell_status()
        self._alone.release()

    def _stop_all(self) -> None:
        stop_trees(self.processes())
        self._supernode = self._superexec = None
        self._trainer.forget()

    def processes(self) -> list["subprocess.Popen[bytes]"]:
        """Return the running children, for ``stop_trees``."""
        children = (self._supernode, self._superexec, self._trainer.process)
        return [child for child in children if child is not None]

    @property
    def trainer_pid(self) -> int | None:
        """Process id of the trainer."""
        return None if self._trainer.process is None else self._trainer.process.pid

    @property
    def supernode_pid(self) -> int | None:
        """Process id of the SuperNode."""
        return None if self._supernode is None else self._supernode.pid

    def progress(self) -> dict[str, Any]:
        """Return what the trainer is doing: ``state``, ``fraction``, ``stage``; empty while it starts."""
        try:
            told = json.loads(self._folder.progress.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def tick(self) -> list[str]:
        """Look after the processes and return what there is to tell people, in words."""
        if self.state is ProcessesState.ENDED:
            return []
        news = self._read_log()
        self._cut_logs()
        halt = halt_now(self._folder)
        try:
            news += self._keep_running() if halt is None else self._keep_halted(halt)
        except OSError as error:
            # no room for a log, no process or no port to be had: whatever is missing is started at a later tick
            news += self._note_computer_trouble(error)
        else:
            if self._trouble is not None and self._trouble.code == _COMPUTER:
                self._trouble = None
        self._tell_status()
        return news

    def _note_computer_trouble(self, error: OSError) -> list[str]:
        known = self._trouble is not None and self._trouble.code == _COMPUTER
        self._trouble = CannotDoHereError(
            "site.computer",
            f"This computer cannot start what the site needs ({error.strerror or type(error).__name__}).",
            "Make room on its disk, or close other programs; the site goes on trying.",
        )
        return [] if known else ["this computer cannot start what the site needs; trying again"]

    def _keep_running(self) -> list[str]:
        news: list[str] = []
        if self._halt is not None:
            self._halt = None
            if self.state is ProcessesState.PAUSED:
                self.state = ProcessesState.STARTING
            self._next_start = 0.0
            news.append("taking part again")
        news += self._trainer.keep(idle=not self._in_hand)
        if self._trainer.given_up is not None:
            self.state, self.error = ProcessesState.ENDED, self._trainer.given_up
        news += self._keep_supernode()
        self._keep_superexec()
        return news

    def _keep_halted(self, halt: Halt) -> list[str]:
        """Let the refusal of what was asked leave, then stop everything; after HALT_LIMIT_S in any case."""
        news = [] if self._halt is not None and self._halt.code == halt.code else [f"taking no part: {halt.words}"]
        if news:
            self._halted_since = time.monotonic()
        self._halt = halt
        if self.state is ProcessesState.PAUSED and halt.code != "site.left":
            return news
        now, alive = time.monotonic(), self._supernode is not None and self._supernode.poll() is None
        if self._in_hand:
            self._fetched_by = now + _FETCH_S
        if alive and now < min(self._fetched_by, self._halted_since + HALT_LIMIT_S):
            return news
        self._stop_all()
        self._in_hand, self._trouble = 0, None
        self.state = ProcessesState.ENDED if halt.code == "site.left" else ProcessesState.PAUSED
        return [*news, "nothing of the site runs now"]

    def _tell_status(self) -> None:
        trouble = self.error or self._trainer.trouble or self._trouble
        pid, started = this_process()
        status = SiteStatus(
            pid=pid,
            started=started,
            processes=self.state.value,
            was_connected=self._was_connected,
            last_message=self._last_message,
            code=trouble.code if trouble else "",
            what=trouble.what if trouble else "",
            remedy=trouble.remedy if trouble else "",
        )
        if status != self._told:
            try:
                write_status(self._folder, status)
            except OSError:
                return  # people see old news where the disk is full; it is tried again at the next tick
            self._told = status

    def _read_log(self) -> list[str]:
        lines = self._tail.lines()
        self._recent = [*self._recent, *lines][-200:]
        news: list[str] = []
        for line in lines:
            if _MESSAGE_CAME.search(line):
                self._in_hand += 1
                self._last_message = round(time.time(), 1)
            elif _MESSAGE_DONE.search(line):
                self._in_hand = max(0, self._in_hand - 1)
            told = [words for pattern, words in _SUPERNODE_WORDS if pattern.search(line)]
            self._note_connection(told)
            news += [words for words in told if not (words == _LOST and news[-1:] == [_LOST])]
        return news

    def _cut_logs(self) -> None:
        if time.monotonic() < self._next_cut:
            return
        self._next_cut = time.monotonic() + _CUT_EVERY_S
        known = known_node_id(self._folder)
        if known is not None:
            with suppress(OSError):
                keep_node_id(self._folder, known)
        for name in ("run", "trainer", "supernode", "superexec"):
            cut_log(self._folder.logs / f"{name}.log")

    def _note_connection(self, told: list[str]) -> None:
        if _CONNECTED in told or (_BACK in told and self._in_session):
            self.state = ProcessesState.CONNECTED
            self._in_session = self._was_connected = True
            self._ended_in_row = 0
            self._trouble = self._refused_since = None
        elif _LOST in told:
            self.state = ProcessesState.RETRYING
            self._trouble = CannotDoHereError(
                "site.unreachable",
                "The coordinator cannot be reached.",
                "It is tried again by itself; the site's check names what is in the way.",
            )

    def _keep_supernode(self) -> list[str]:
        if self._supernode is not None:
            code = self._supernode.poll()
            if code is None:
                return []
            self._supernode = None
            self._stop_superexec()
            self._ended_in_row += 1
            self._next_start = time.monotonic() + (_RETRY_S if self._ended_in_row <= _TRIES else _RARE_RETRY_S)
            return self._explain_end(code)
        if time.monotonic() >= self._next_start and self.state is not ProcessesState.ENDED:
            self._start_supernode()
        return []

    def _start_supernode(self) -> None:
        (port,) = free_ports(1)
        self._supernode_address = f"127.0.0.1:{port}"
        self._recent = []
        self._in_hand = 0
        self._in_session = False
        self._supernode = site_child(self._folder, "supernode", "supernode", "--port", str(port)).start()

    def _keep_superexec(self) -> None:
        if self._supernode is None or (self._superexec is not None and self._superexec.poll() is None):
            return
        self._superexec = site_child(
            self._folder,
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
            # Flower ends so at an answer of 401: expelled, or signed with a time that is not the coordinator's.
            self._refused_since = self._refused_since or time.monotonic()
            self.state = ProcessesState.RETRYING
            self._trouble = CannotDoHereError(
                "site.refused",
                "The coordinator refuses this site: it has shut it out, or one of their clocks is wrong.",
                "Compare this machine's date and time with the coordinator's; the site goes on trying.",
            )
            return ["the coordinator refuses this site (shut out, or a wrong clock); trying again"]
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return self._note_certificate()
        if "Exit Code: 302" in text:
            self._end("site.key", "The site's key cannot be used.", "Set the site up again.")
            return ["the site's key cannot be used"]
        self.state = ProcessesState.RETRYING
        if "Exit Code: 305" in text:
            since = self._refused_since
            if since is not None and time.monotonic() - since >= SHUT_OUT_S:
                self._end("site.expelled", "The coordinator has shut this site out.", "Ask it for a new invitation.")
                return ["the coordinator has shut this site out"]
            self._trouble = CannotDoHereError(
                "site.not-admitted",
                "The coordinator has not admitted this site yet, or has not yet noticed that it was gone.",
                "If it lasts longer than a minute: read the key's fingerprint out to the coordinator.",
            )
            return ["not admitted yet, or connected a moment ago (this can last a minute); trying again"]
        self._trouble = CannotDoHereError(
            "site.connection", "The connection's process ended.", "It is started again; logs/supernode.log says more."
        )
        return [f"the connection's process ended (code {code}) and is started again"]

    def _note_certificate(self) -> list[str]:
        """Go on trying: it has expired and is being renewed, a clock is not set yet, a guest network is in between."""
        known = self._trouble is not None and self._trouble.code == _CERTIFICATE
        self._next_start = time.monotonic() + _RARE_RETRY_S
        self.state = ProcessesState.RETRYING
        self._trouble = CannotDoHereError(
            "site.wrong-certificate",
            "The coordinator does not show a certificate that this site trusts.",
            "The site's check tells which layer is wrong: address, clock, an inspecting proxy, an expired certificate, "
            "or ca.crt. The site goes on trying.",
        )
        return [] if known else ["the coordinator's certificate is not one this site trusts; trying again"]

    def _end(self, code: str, what: str, remedy: str) -> None:
        self.state = ProcessesState.ENDED
        self.error = CannotDoHereError(code, what, remedy)
