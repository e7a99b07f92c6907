"""Runs that nobody follows: killed ones are told of, living ones are followed again and never taken for dead."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from filelock import FileLock
from tiny_deployment import tiny_federation

from FedSegCore.common.errors import UsageError
from FedSegCore.federation.coordinator.ended_runs import EndedRuns, tell_ended
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.follow import start_or_join
from FedSegCore.federation.coordinator.monitoring import Monitor
from FedSegCore.federation.coordinator.run_view import RunFold
from FedSegCore.federation.coordinator.runs import RunStatus
from FedSegCore.federation.coordinator.status import ServerView
from FedSegCore.federation.events import EVENTS_FILE, Event, EventLog, read_events

KILLED, STOPPED, GOES_ON = (
    RunStatus("finished", "failed", "No heartbeat received from the task", "night"),
    RunStatus("finished", "stopped", "", "night"),
    RunStatus("running", "", "", "night"),
)


@pytest.fixture
def folder(coordinator: CoordinatorFolder) -> CoordinatorFolder:
    """A coordinator with a run whose server app was killed in its second round, so that its events do not end."""
    run = coordinator.runs / "night"
    run.mkdir()
    log = EventLog(run / EVENTS_FILE)
    log.emit(Event("round-closed", "CT, round 1 of 9.", "CT", 1, 9, data={"answered": ["a"]}))
    log.emit(Event("round-started", "CT, round 2 of 9.", "CT", 2, 9, data={"sites": ["a"], "deadline_s": 60.0}))
    return coordinator


def ends(folder: CoordinatorFolder) -> list[str]:
    return [event["code"] for event in read_events(folder.runs / "night" / EVENTS_FILE) if event["event"] == "failed"]


@pytest.mark.parametrize(("how", "code"), [(KILLED, "run.failed"), (STOPPED, "run.stopped")])
def test_the_serving_coordinator_tells_of_a_run_that_was_killed(
    folder: CoordinatorFolder, how: RunStatus, code: str
) -> None:
    clock, stands = [0.0], {7: GOES_ON}
    monitor = Monitor(folder, ask=lambda _: ServerView(True, frozenset(), stands), clock=lambda: clock[0])

    def after(seconds: float) -> list[str]:
        clock[0] += seconds
        monitor.tick()
        return ends(folder)

    assert after(61.0) == []
    stands[7] = how
    # at the first look whoever follows it may be about to say so
    assert after(61.0) == []
    assert after(6.0) == [code]
    assert after(600.0) == [code]
    fold = RunFold(folder.runs / "night")
    fold.update()
    assert (fold.view.stage, fold.view.groups["CT"].open) == ("failed", None)
    assert f"The run has failed ({code})" in monitor.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "found",
    [
        {9: GOES_ON, 7: KILLED},  # started again
        {7: RunStatus("finished", "completed", "", "night")},
        {7: RunStatus("finished", "failed", "", "")},  # a delivery
        {7: RunStatus("finished", "failed", "", "../night")},
        {7: RunStatus("finished", "failed", "", "never")},
    ],
)
def test_nothing_else_is_told_of(folder: CoordinatorFolder, found: Mapping[int, RunStatus]) -> None:
    looks = EndedRuns(folder.runs)
    for _ in range(3):
        looks.look(found)
    assert ends(folder) == []


def test_a_second_process_that_finds_the_run_busy_does_not_end_it(folder: CoordinatorFolder) -> None:
    busy = RunStatus("finished", "failed", "[federation.run-busy]", "night")
    tell_ended(folder.runs, 9, {9: busy, 7: GOES_ON})
    assert ends(folder) == []
    tell_ended(folder.runs, 9, {9: busy, 7: KILLED})
    assert ends(folder) == ["run.failed"]


def test_a_run_whose_follower_went_away_is_followed_again(folder: CoordinatorFolder) -> None:
    started: list[str] = []
    control = SimpleNamespace(
        runs=lambda: {9: RunStatus("running", "", "", "other"), 7: GOES_ON, 5: KILLED},
        start=lambda name: started.append(name) or 11,
    )
    config = tiny_federation()
    # nobody drives it: what SuperLink still takes for running was killed
    assert start_or_join(folder, control, "night", config) == (11, False)
    (folder.runs / "night" / "state").mkdir()
    assert start_or_join(folder, control, "night", config) == (11, False)
    with FileLock(folder.runs / "night" / "state" / "lock"):
        before = (folder.runs / "night" / "federation.json").read_bytes()
        assert start_or_join(folder, control, "night", config) == (7, True)
        with pytest.raises(UsageError, match=r"run\.going-on"):
            start_or_join(folder, control, "night", tiny_federation(rounds=5))
    assert started == ["night", "night"]
    assert (folder.runs / "night" / "federation.json").read_bytes() == before
    with pytest.raises(UsageError, match=r"run\.name"):
        start_or_join(folder, control, "../night", config)
