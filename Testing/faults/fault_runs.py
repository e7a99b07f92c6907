"""One federated training under a seeded schedule of faults: driven to its end, and everything that must hold checked.

A coordinator is played who does what one does: keeps processes running, and starts a run again that has failed or whose
server app is gone.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fault_kinds import KINDS, LEAST_S, Target, kinds_for
from fault_world import World
from tiny_deployment import tiny_federation

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.coordinator.follow import write_run
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.site.journal_entries import Left
from FedSegCore.federation.state_store import GroupStateStore

ROUNDS = 2
LIMIT_S = 420.0
_POLL_S = 1.0
_GONE_S = 3.0
_NOT_STARTED_S = 20.0
# long enough that on a busy machine, too, there is something to strike
_WAIT_FOR_TARGET_S = 60.0


@dataclass
class Verdict:
    """How a run went.

    Attributes:
        seed: of its schedule.
        faults: what was done, in order: (seconds since the run's start, kind).
        starts: how often it was started.
        seconds: how long it took.
        wrong: what does not hold; empty where all is well.
    """

    seed: int
    faults: list[tuple[float, str]] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class FaultyRun:
    """A run of ``ROUNDS`` rounds under the faults of one seed.

    Args:
        world: the running federation.
        seed: which faults, when, for how long.
        faults: how many.
        only: kinds to draw from; empty: all that suit so many sites.
    """

    def __init__(self, world: World, seed: int, faults: int = 2, only: tuple[str, ...] = ()) -> None:
        self._world = world
        self._draws = random.Random(f"faults-{seed}")
        self._verdict = Verdict(seed)
        config = tiny_federation(rounds=ROUNDS, min_sites=1, round_deadline_s=25.0, join_deadline_s=180.0)
        self._run = write_run(world.federation.coordinator, f"seed-{seed}", config)
        self._target = Target(world, self._run, self._draws)
        kinds = kinds_for(world, only)
        moments = sorted(self._draws.uniform(1.0, 11.0) for _ in range(faults))
        self._schedule = [(moment, self._draws.choice(kinds), self._draws.uniform(2.0, 7.0)) for moment in moments]
        self._started = time.monotonic()
        self._over = threading.Event()
        self._committed = 0

    def run(self) -> Verdict:
        """Drive the run to its end and check it."""
        helpers = [threading.Thread(target=work, daemon=True) for work in (self._do_faults, self._watch_commits)]
        for helper in helpers:
            helper.start()
        try:
            with ControlClient(self._world.federation.coordinator) as control:
                self._drive(control)
        finally:
            self._over.set()
            for helper in helpers:
                helper.join()
        self._verdict.seconds = round(time.monotonic() - self._started, 1)
        self._check()
        return self._verdict

    def _drive(self, control: ControlClient) -> None:
        while time.monotonic() - self._started < LIMIT_S and not self._world.trouble:
            if self._world.starts_a_server_app():
                # of a start that was given up, on a busy machine: more of them would only hold each other up
                time.sleep(_POLL_S)
                continue
            try:
                run_id = control.start(self._run.name)
            except FedSegError:
                time.sleep(_POLL_S)
                continue
            self._verdict.starts += 1
            if self._follow(control, run_id):
                return
        self._verdict.wrong.append("the run did not end in time")

    def _follow(self, control: ControlClient, run_id: int) -> bool:
        """Follow one start of the run; returns whether the run is complete, False where it must be started again."""
        until = time.monotonic() + _NOT_STARTED_S
        while time.monotonic() - self._started < LIMIT_S and not self._world.trouble:
            with suppress(FedSegError):
                status = control.status(run_id)
                if status.finished:
                    return status.outcome == "completed"
            if self._world.server_app(self._run) is not None:
                until = time.monotonic() + _GONE_S
            elif self._world.starts_a_server_app():
                until = time.monotonic() + _NOT_STARTED_S
            elif time.monotonic() > until:
                # nobody drives it any more: Flower would notice after a minute
                with suppress(FedSegError):
                    control.stop(run_id)
                return False
            time.sleep(_POLL_S)
        return False

    def _do_faults(self) -> None:
        for moment, kind, length in self._schedule:
            self._over.wait(max(0.0, self._started + moment - time.monotonic()))
            undo = self._strike(kind)
            if undo is None:
                continue
            self._verdict.faults.append((round(time.monotonic() - self._started, 1), kind))
            self._over.wait(max(length, LEAST_S.get(kind, 0.0)))
            undo()

    def _strike(self, kind: str) -> Callable[[], None] | None:
        """Do it as soon as there is what it is done to; None where the run was over before."""
        until = time.monotonic() + _WAIT_FOR_TARGET_S
        while not self._over.is_set() and time.monotonic() < until:
            with suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
                return KINDS[kind](self._target)
            self._over.wait(0.1)
        return None

    def _watch_commits(self) -> None:
        store = GroupStateStore(self._run / "state")
        while not self._over.wait(_POLL_S):
            with suppress(FedSegError):
                state = store.load("CT")
                now = state.round_number if state is not None else 0
                if now < self._committed and not self._target.damaged:
                    self._verdict.wrong.append(f"round {self._committed} was lost")
                self._committed = max(self._committed, now)

    def _check(self) -> None:
        wrong = self._verdict.wrong
        wrong += self._world.trouble
        wrong += [f"site {name} has given up ({code})" for name, code in self._world.ended_sites().items()]
        try:
            group = FederationOutcome.load(self._run).groups["CT"]
        except (FedSegError, KeyError) as error:
            wrong.append(f"no outcome: {error}")
            return
        numbers = {row.round_number for row in group.history if not row.code}
        if not group.done or numbers != set(range(1, ROUNDS + 1)):
            wrong.append(f"done: {group.done}, rounds with answers: {sorted(numbers)}")
        told: list[str] = []
        GroupStateStore(self._run / "state").load("CT", told.append)
        wrong += told
        wrong += self._check_journals({row.payload_sha256: row.site for row in group.history if not row.code})

    def _check_journals(self, used: dict[str, str]) -> list[str]:
        wrong = []
        for name, folder in self._world.folders.items():
            verified = folder.journal.verify()
            if not verified.whole:
                wrong.append(f"the journal of {name}: {verified.reason}")
                continue
            left = {line.entry.sha256 for line in folder.journal.lines() if isinstance(line.entry, Left)}
            mine = {digest for digest, site in used.items() if site == name}
            wrong += [f"an answer of {name} is not journalled"] * len(mine - left)
        return wrong


def run_seeds(
    folder: Path,
    sites: int,
    own_networks: bool,
    seeds: list[int],
    told: Callable[[Verdict], None],
    faults: int = 2,
    only: tuple[str, ...] = (),
) -> None:
    """Run all ``seeds`` one after another in one federation of so many ``sites``; see ``World``."""
    with World(folder, sites, own_networks) as world:
        for seed in seeds:
            told(FaultyRun(world, seed, faults, only).run())
