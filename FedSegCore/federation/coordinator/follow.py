"""A run, from its folder to its end: written down, started, followed in words, and its real outcome told."""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from FedSegCore.common.errors import CancelledError, CannotDoHereError, FedSegError, UsageError
from FedSegCore.common.files import write_text
from FedSegCore.common.names import is_name
from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.run_view import RunFold
from FedSegCore.federation.coordinator.runs import NOT_RUNNING, REFUSED, ControlClient, RunStatus
from FedSegCore.federation.events import EVENTS_FILE, Event, EventLog
from FedSegCore.federation.initial_model import check_pretrained, write_initial_models
from FedSegCore.federation.log_tail import LogTail
from FedSegCore.federation.private_files import private_folder

_LOOK_S = 0.5
_ASK_S = 2.0  # each question costs SuperLink about 25 ms
_OUTAGE_S = 60.0
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def checked_run_name(name: str) -> str:
    """Return ``name``, which becomes a folder's name.

    Raises:
        UsageError: it is not made of lower case letters, digits and hyphens, or is a device's on Windows.
    """
    if not _RUN_NAME.fullmatch(name) or not is_name(name):
        raise UsageError("run.name", f"{name!r} is no name for a run.", "Use lower case letters, digits and hyphens.")
    return name


def write_run(folder: CoordinatorFolder, name: str, config: FederationConfig, pretrained: Path | None = None) -> Path:
    """Make ``runs/<name>`` with the federation's configuration and first models for the server app, and return it.

    Args:
        folder: the coordinator's.
        name: the run's.
        config: the federation.
        pretrained: DenseNet-121's weights (safetensors) for the first models of networks that begin with it.

    Raises:
        UsageError: ``run.name``.
        BadInputError: ``network.*``.
        CannotDoHereError: ``federation.disk``.
    """
    checked_run_name(name)
    if pretrained is not None:
        check_pretrained(config, pretrained)
    run_folder = private_folder(folder.runs / name)
    write_initial_models(run_folder, config, pretrained)
    write_text(run_folder / "federation.json", config.model_dump_json(indent=2) + "\n", private=True)
    return run_folder


class RunFollower:
    """Turns a run's events into progress.

    Args:
        run_folder: the run's folder.
        progress: told of every event; the fraction is the mean of the groups' rounds.
    """

    def __init__(self, run_folder: Path, progress: Progress) -> None:
        self._tail = LogTail(run_folder / EVENTS_FILE, from_end=True)
        self._progress = progress
        self._done: dict[str, float] = {}
        self._stage = "starting the run"

    def tick(self) -> None:
        """Report what has happened; raises CancelledError if the user has cancelled."""
        for event in self._tail.objects():
            self._stage = str(event.get("message", self._stage))
            self._count(str(event.get("event")), str(event.get("group")), event.get("round"), event.get("rounds"))
            self._tell()
        self._tell()

    def _count(self, kind: str, group: str, round_number: object, rounds: object) -> None:
        if not group or not isinstance(round_number, int) or not isinstance(rounds, int) or rounds < 1:
            return
        closed = kind in ("round-closed", "group-finished")
        self._done[group] = max(self._done.get(group, 0.0), (round_number - (0 if closed else 1)) / rounds)

    def _tell(self) -> None:
        fraction = sum(self._done.values()) / len(self._done) if self._done else 0.0
        self._progress.update(fraction, self._stage)


def follow_run(
    control: ControlClient, run_folder: Path, run_id: int, progress: Progress, tick: Callable[[], None] = lambda: None
) -> None:
    """Follow a run to its end; a cancelled ``progress`` stops the run.

    Args:
        control: the coordinator's SuperLink.
        run_folder: the run's folder.
        run_id: Flower's id of the run.
        progress: told of every event.
        tick: called between looks, to keep processes alive.

    Raises:
        CancelledError: cancelled here.
        CannotDoHereError: ``run.failed`` or ``run.stopped``; ``coordinator.not-running`` after a minute's outage.
    """
    follower = RunFollower(run_folder, progress)

    def look() -> None:
        tick()
        follower.tick()

    try:
        status = _last_status(control, run_id, look)
    except CancelledError:
        with contextlib.suppress(CannotDoHereError):
            stop_run(control, run_folder.parent, run_id)
        raise
    follower.tick()
    if status.outcome == "completed":
        return
    was_stopped = status.outcome == "stopped"
    # Flower's details may hold an exception's text, which is not for the events
    _tell_ended(control, run_folder.parent, run_id, _stopped() if was_stopped else _failed("its process has ended"))
    raise _stopped() if was_stopped else _failed(status.details)


def stop_run(control: ControlClient, runs: Path, run_id: int) -> None:
    """Stop a run, and tell so in its events; raises as ``ControlClient.stop``.

    Args:
        control: the coordinator's SuperLink.
        runs: the coordinator's folder of runs.
        run_id: Flower's id of the run.
    """
    control.stop(run_id)
    _tell_ended(control, runs, run_id, _stopped())


def _tell_ended(control: ControlClient, runs: Path, run_id: int, error: CannotDoHereError) -> None:
    """Note in a run's events that it has ended, unless they say so: a process that is killed cannot."""
    try:
        name = control.trained_by(run_id)
    except FedSegError:  # what there is to say of the run itself counts more
        return
    if not _RUN_NAME.fullmatch(name) or not (runs / name).is_dir():
        return
    fold = RunFold(runs / name)
    fold.update()
    if fold.view.stage in ("starting", "running"):
        words = f"{error.what} {error.remedy}"
        EventLog(runs / name / EVENTS_FILE).emit(Event("failed", words, code=error.code))


def _stopped() -> CannotDoHereError:
    return CannotDoHereError("run.stopped", "The run was stopped.", "Start it again to go on with its next round.")


def _failed(details: str) -> CannotDoHereError:
    return CannotDoHereError(
        "run.failed",
        f"The run failed: {details or 'no reason was given'}.",
        "Read logs/superexec.log in the coordinator's folder; start it again to go on with its next round.",
    )


def _last_status(control: ControlClient, run_id: int, look: Callable[[], None]) -> RunStatus:
    """Return how a run stands once it has ended, looking after it meanwhile; outages of a minute are borne."""
    answered = time.monotonic()
    while True:
        try:
            status = control.status(run_id)
        except CannotDoHereError as error:
            if error.code not in (NOT_RUNNING, REFUSED) or time.monotonic() - answered > _OUTAGE_S:
                raise
        else:
            answered = time.monotonic()
            if status.finished:
                return status
        asked = time.monotonic()
        while time.monotonic() - asked < _ASK_S:
            look()
            time.sleep(_LOOK_S)
