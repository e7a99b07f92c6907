"""The federation's loop: groups whose rounds do not wait for each other, on any Flower Grid."""

import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from flwr.serverapp import Grid
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError
from FedSegCore.common.files import write_text
from FedSegCore.common.locks import is_locked
from FedSegCore.common.progress import Progress
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.aggregation.rule import Arrays
from FedSegCore.federation.array_files import disk_trouble, make_folder
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.config_checks import check_federation
from FedSegCore.federation.events import EVENTS_FILE, Event, EventCallback, EventLog
from FedSegCore.federation.groups import Group, Participation, always
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.membership import Membership
from FedSegCore.federation.own_models import Admitted, unknown
from FedSegCore.federation.state_store import GroupState, GroupStateStore
from FedSegCore.networks.config import NetworkConfig

STATE_FOLDER = "state"
CONFIG_FILE = "federation.json"

_LOCK, _LOCK_S = "lock", 20.0

_MAY_CHANGE = {"rounds", "min_sites", "join_deadline_s", "return_deadline_s", "round_deadline_s"}

ModelMaker = Callable[[NetworkConfig, int], Arrays]


class FederationLoop:
    """Runs all groups of a federation to their end; ``run`` may be called once.

    Every step pushes what is due, pulls the answers that are there one at a time, and closes rounds whose sites have
    all answered or whose deadline passed. Everything is written below ``folder``: ``state/`` after every round,
    ``events.jsonl`` as it happens. In a folder that holds a state already, groups go on with their next round.

    Args:
        grid: Flower's grid; only ``push_messages``, ``pull_messages`` and ``get_nodes`` are used.
        config: the federation.
        folder: the run's folder; made if it does not exist.
        on_event: told of every event.
        progress: told the share of rounds done; cancels the run.
        participation: who is asked in which round; everybody if not given.
        admitted: who is admitted now: the own model of a site that was expelled is forgotten.
        make_model: makes a group's first model from its network and the federation's seed.
        poll_s: pause when nothing happens.
        clock: seconds, monotonic.
        sleep: pauses.

    Raises:
        BadInputError: what ``check_federation`` raises.
        CannotDoHereError: ``federation.disk``.
    """

    def __init__(
        self,
        grid: Grid,
        config: FederationConfig,
        folder: Path,
        *,
        on_event: EventCallback | None = None,
        progress: Progress | None = None,
        participation: Participation = always,
        admitted: Admitted = unknown,
        make_model: ModelMaker = initial_model,
        poll_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        check_federation(config)
        make_folder(folder / STATE_FOLDER)
        self._grid = grid
        self._folder = folder
        self._config = config
        self._store = GroupStateStore(folder / STATE_FOLDER)
        self._log = EventLog(folder / EVENTS_FILE, on_event)
        self._progress = progress or Progress()
        self._participation = participation
        self._admitted = admitted
        self._make_model = make_model
        self._poll_s = poll_s
        self._clock = clock
        self._sleep = sleep
        self._members = Membership(grid, self._log, clock, config.serves)
        self._groups: dict[str, Group] = {}

    def run(self) -> None:
        """Run until every group has ended; what ends it early is told as a ``"failed"`` event too.

        Raises:
            CannotDoHereError: ``federation.no-sites``: nobody came within the join deadline;
                ``federation.nothing-trained``: no group closed a single round; ``federation.run-busy``: another
                process runs it; ``federation.disk``.
            BadInputError: ``federation.config-changed``: the folder holds a run of another configuration;
                ``federation.batch-norm-policy`` …: the configuration does not fit the network.
            CancelledError: cancelled; the state of the last closed rounds is on disk.
        """
        try:
            # a former server that is just ending may hold it for a moment; a killed one holds nothing
            with FileLock(self._folder / STATE_FOLDER / _LOCK, timeout=_LOCK_S):
                _require_same_federation(self._folder, self._config)
                self._store.remove_unfinished()
                self._run()
        except Timeout as error:
            raise CannotDoHereError(
                "federation.run-busy", "This run is going on in another process.", "Stop it, or wait for its end."
            ) from error
        except FedSegError as error:
            self._log.emit(Event("failed", f"{error.what} {error.remedy}", code=error.code))
            raise
        except Exception as error:
            # its text may name anything: only the logs have it
            what = f"An unexpected error ({type(error).__name__}) has ended the run."
            self._log.emit(Event("failed", f"{what} The coordinator's logs say more.", code="run.failed"))
            raise
        self._log.emit(Event("finished", "The federation has finished.", data={"groups": sorted(self._groups)}))
        self._progress.update(1.0, "The federation has finished")

    def _run(self) -> None:
        for name in self._store.groups():
            self._add_group(name, self._store.load(name, self._tell_damaged))
        started = self._clock()
        while True:
            happened = self._step()
            if self._groups and all(group.ended for group in self._groups.values()) and not self._members.asking:
                break
            if not self._groups and self._clock() - started > self._config.join_deadline_s:
                raise CannotDoHereError(
                    "federation.no-sites",
                    "No site joined before the join deadline.",
                    "Start the sites, look at their connection, or allow more time with join_deadline_s.",
                )
            if not happened:
                self._sleep(self._poll_s)
        if not any(group.state.round_number for group in self._groups.values()):
            raise CannotDoHereError(
                "federation.nothing-trained",
                "No group got a usable answer from its sites.",
                "The run's events name what every site answered; cure that and start the run again.",
            )

    def _step(self) -> bool:
        happened = self._members.update()
        for site in self._members.sites.values():
            name = self._config.group_of(site.introduction.modality)
            if name not in self._groups:
                self._add_group(name, self._first_state(name, site.introduction.modality))
                happened = True
        for group in self._groups.values():
            happened = group.pull() or happened
            happened = group.step() or happened
        self._report()
        return happened

    def _add_group(self, name: str, state: GroupState | None) -> None:
        if state is not None:
            self._groups[name] = Group(
                state,
                self._config,
                self._store,
                self._members,
                self._grid,
                self._log,
                self._clock,
                self._participation,
                self._admitted,
            )

    def _first_state(self, name: str, modality: str) -> GroupState:
        model = self._make_model(self._config.network_of(name, modality), self._config.seed)
        # a rule that cannot work with this model says so now, not after the first round of training
        build_rule(self._config.aggregation).begin(model, {}, {})
        return GroupState(name, 0, model)

    def _tell_damaged(self, words: str) -> None:
        self._log.emit(Event("state-damaged", words, code="federation.state-damaged"))

    def _report(self) -> None:
        groups = self._groups.values()
        fraction = sum(group.fraction for group in groups) / len(groups) if groups else 0.0
        shown = ", ".join(
            f"{name} round {min(group.state.round_number + 1, self._config.rounds)} of {self._config.rounds}"
            for name, group in sorted(self._groups.items())
            if not group.ended
        )
        self._progress.update(fraction, shown or "Waiting for sites")


def is_driven(folder: Path) -> bool:
    """Return whether a process runs the loop in a run's folder now; one that was killed does not."""
    return is_locked(folder / STATE_FOLDER / _LOCK)


def _require_same_federation(folder: Path, config: FederationConfig) -> None:
    """Write the configuration a state belongs to, or refuse to go on with another one."""
    path = folder / STATE_FOLDER / CONFIG_FILE
    if path.exists():
        before = read_state_config(path)
        if before.model_dump(exclude=_MAY_CHANGE) != config.model_dump(exclude=_MAY_CHANGE):
            raise BadInputError(
                "federation.config-changed",
                "The folder holds a run of another configuration.",
                "Give the configuration it was started with, or another folder.",
            )
    try:
        write_text(path, config.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise disk_trouble() from error


def read_state_config(path: Path) -> FederationConfig:
    """Return the configuration that a state belongs to; raises BadInputError ``federation.state-unreadable``."""
    try:
        return FederationConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInputError(
            "federation.state-unreadable",
            "The configuration beside the saved state cannot be read.",
            "Restore the run's folder from a backup, or start a new run.",
        ) from error
