"""A run, from its folder to its end: written down, started, followed in words, and its real outcome told."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from FedSegCore.common.errors import CancelledError, CannotDoHereError, FedSegError, UsageError
from FedSegCore.common.files import write_text
from FedSegCore.common.names import is_name
from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.ended_runs import RUN_NAME, run_failed, run_stopped, tell_ended
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.runs import NOT_RUNNING, REFUSED, ControlClient, RunStatus
from FedSegCore.federation.events import EVENTS_FILE
from FedSegCore.federation.initial_model import check_pretrained, write_initial_models
from FedSegCore.federation.log_tail import LogTail
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.rounds import CONFIG_FILE, is_driven

_LOOK_S = 0.5
_ASK_S = 2.0  # each question costs SuperLink about 25 ms
_OUTAGE_S = 60.0


def checked_run_name(name: str) -> str:
    """Return ``name``, which becomes a folder's name.

    Raises:
        UsageError: it is not made of lower case letters, digits and hyphens, or is a device's on Windows.
    """
    if not RUN_NAME.fullmatch(name) or not is_name(name):
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
    write_text(run_folder / CONFIG_FILE, _config_text(config), private=True)
    return run_folder


def start_or_join(
    folder: CoordinatorFolder,
    control: ControlClient,
    name: str,
    config: FederationConfig,
    pretrained: Path | None = None,
) -> tuple[int, bool]:
    """Start a run, or find the one of that name that goes on, since who followed it went away.

    Args:
        folder: the coordinator's.
        control: its SuperLink.
        name: the run's.
        config: the federation.
        pretrained: as in ``write_run``.

    Returns:
        Flower's id of the run, and whether it went on already.

    Raises:
        UsageError: ``run.name``; ``run.going-on``: with another configuration.
        FedSegError: as ``write_run`` and ``ControlClient.start``.
    """
    run_folder = folder.runs / checked_run_name(name)
    if is_driven(run_folder):
        going_on = [run_id for run_id, status in control.runs().items() if status.run == name and not status.finished]
        if going_on:
            _require_same(run_folder, config)
            return going_on[0], True
    write_run(folder, name, config, pretrained)
    return control.start(name), False


def _require_same(run_folder: Path, config: FederationConfig) -> None:
    told = (run_folder / CONFIG_FILE).read_text(encoding="utf-8")
    if told != _config_text(config):
        raise UsageError(
            "run.going-on",
            f"The run {run_folder.name} is going on with another configuration.",
            "Give the file that it was started with, or stop it first with 'fedseg coordinator stop'.",
        )


def _config_text(config: FederationConfig) -> str:
    return config.model_dump_json(indent=2) + "\n"


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
    _tell_ended(control, run_folder.parent, run_id)
    raise run_stopped() if status.outcome == "stopped" else run_failed(status.details)


def stop_run(control: ControlClient, runs: Path, run_id: int) -> None:
    """Stop a run, and tell so in its events; raises as ``ControlClient.stop``.

    Args:
        control: the coordinator's SuperLink.
        runs: the coordinator's folder of runs.
        run_id: Flower's id of the run.
    """
    control.stop(run_id)
    _tell_ended(control, runs, run_id)


def _tell_ended(control: ControlClient, runs: Path, run_id: int) -> None:
    with contextlib.suppress(FedSegError):  # what there is to say of the run itself counts more
        tell_ended(runs, run_id, {**control.runs(), run_id: control.status(run_id)})


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
