"""A coordinator's computer that slept, or whose clock jumped, loses no run; a server app that is silent does."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.corestate import sql_corestate

from FedSegCore.federation.coordinator import standstill
from FedSegCore.federation.coordinator.standstill import Standstill, outlive_standstills


class State(sql_corestate.SqlCoreState):
    """Flower's own state, as far as tasks go."""

    def get_node_id(self) -> int:
        return 1

    def store_message_and_object_tree(self, *_: Any) -> None:
        return None


class Passing:
    """The time, which a test lets pass for Flower and for us."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 3, 10, 12, 0, tzinfo=dt.UTC)

    def let(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    time = Passing()
    for name in standstill._METHODS:  # put back at the end
        monkeypatch.setattr(sql_corestate.SqlCoreState, name, getattr(sql_corestate.SqlCoreState, name))
    monkeypatch.setattr(sql_corestate, "now", lambda: time.now)
    return time


def running_task(folder: Path) -> tuple[State, int, str]:
    state = State(str(folder / "state.db"), None)
    state.initialize()
    task = state.create_task(TaskType.SERVER_APP, 7)
    token = state.claim_task(task)
    assert token
    assert state.activate_task(task)
    return state, task, token


def asked_for(state: State, passing: Passing, seconds: int) -> None:
    """Let time pass in which SuperExec asks for tasks every two seconds."""
    for _ in range(seconds // 2):
        passing.let(2.0)
        state.get_tasks(statuses=["pending"])


def sub_status(state: State, task: int) -> str:
    (found,) = state.get_tasks(task_ids=[task])
    return str(found.status.sub_status)


def test_flower_alone_gives_a_run_up_that_slept(tmp_path: Path, passing: Passing) -> None:
    """What all this is for; where this fails, Flower has learnt it and the module can go."""
    state, task, token = running_task(tmp_path)
    passing.let(3600.0)
    assert state.get_task_by_token(token) is None
    assert not state.acknowledge_task_heartbeat(task)
    assert sub_status(state, task) == "failed"


@pytest.mark.parametrize("first", ["token", "heartbeat", "tasks"])
def test_a_run_outlives_the_sleep_of_its_computer(tmp_path: Path, passing: Passing, first: str) -> None:
    outlive_standstills(lambda: passing.now.timestamp())
    state, task, token = running_task(tmp_path)
    asked_for(state, passing, 40)
    passing.let(24 * 3600.0)
    # whoever comes first after it
    asks = {
        "token": lambda: state.get_task_by_token(token),
        "heartbeat": lambda: state.acknowledge_task_heartbeat(task),
        "tasks": lambda: state.get_tasks(statuses=["running"]),
    }
    assert asks[first]()
    asked_for(state, passing, 26)
    assert state.acknowledge_task_heartbeat(task)
    assert sub_status(state, task) == ""
    # it was killed meanwhile: a minute after its last heartbeat it is dead, as ever
    asked_for(state, passing, 66)
    assert state.get_task_by_token(token) is None
    assert sub_status(state, task) == "failed"


def test_a_run_outlives_a_disk_that_is_full_for_minutes(
    tmp_path: Path, passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlive_standstills(lambda: passing.now.timestamp())
    state, task, token = running_task(tmp_path)
    asked_for(state, passing, 40)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(sql_corestate, "update", refuse)
        for _ in range(60):
            passing.let(2.0)
            with pytest.raises(OSError, match="full"):
                state.acknowledge_task_heartbeat(task)
            # once a heartbeat was lost, nobody is told that the task is over
            with pytest.raises(OSError, match="full"):
                state.get_task_by_token(token)
    assert state.get_task_by_token(token)
    assert state.acknowledge_task_heartbeat(task)
    assert sub_status(state, task) == ""


def test_where_tasks_could_not_be_given_time_it_is_tried_again() -> None:
    now, tried = [1000.0], []

    def prolong(state: str) -> None:
        tried.append(state)
        if len(tried) == 2:
            raise OSError("database is locked")

    looks = Standstill(prolong, clock=lambda: now[0])
    looks.look("first")
    now[0] += 5.0
    looks.look("not now")
    now[0] += 3600.0
    with pytest.raises(OSError, match="locked"):
        looks.look("slept")
    looks.look("again")
    looks.look("not now")
    # a clock that was set back is no standstill
    now[0] -= 7200.0
    looks.look("not now")
    assert tried == ["first", "slept", "again"]
