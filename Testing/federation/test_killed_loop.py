"""A coordinator that is killed at any instant gives the same bits as an unbroken one, and its memory does not grow."""

import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation, make_model
from filelock import FileLock
from killed_loop import KILLS, make_run
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.federation.coordinator.run_view import RunFold
from FedSegCore.federation.events import Event, EventLog, read_events
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.rounds import FederationLoop
from FedSegCore.federation.state_store import GroupStateStore

HERE = Path(__file__).parent
SEEDS = range(6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_instant_it_comes_to_the_same_bits(tmp_path):
    make_run(tmp_path / "whole").loop().run()
    whole = FederationOutcome.load(tmp_path / "whole")
    paths = os.pathsep.join(map(str, (HERE.parent.parent, HERE)))
    done = subprocess.run(
        [sys.executable, HERE / "killed_loop.py", tmp_path, *map(str, SEEDS)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["seed"] for run in told] == list(SEEDS)
    # nearly every run was killed several times, and at different places
    assert sum(run["attempts"] - 1 for run in told) >= 2 * len(SEEDS)
    assert max(run["attempts"] for run in told) <= KILLS + 1
    for run in told:
        assert run["done"]
        for before, after in itertools.pairwise(run["committed"]):
            assert all(after[group] >= rounds for group, rounds in before.items())
        _require_the_same(FederationOutcome.load(tmp_path / f"seed-{run['seed']}"), whole)
        left = [path.name for path in (tmp_path / f"seed-{run['seed']}").rglob(".writing-*")]
        assert left == []


def _require_the_same(outcome: FederationOutcome, whole: FederationOutcome) -> None:
    assert outcome.groups.keys() == whole.groups.keys()
    for name, group in whole.groups.items():
        other = outcome.groups[name]
        assert other.done
        assert other.history == group.history
        assert other.members == group.members
        assert other.site_models.keys() == group.site_models.keys()
        for site in (*group.site_models, "newcomer"):
            mine, theirs = other.model_of(site), group.model_of(site)
            assert {key: mine[key].tobytes() for key in mine} == {key: theirs[key].tobytes() for key in theirs}


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("victim", ["model.safetensors", "rule.safetensors", "state.json", "site-000000.safetensors"])
def test_a_damaged_round_is_trained_again_from_the_one_before(tmp_path, victim):
    make_run(tmp_path / "whole").loop().run()
    folder = tmp_path / "damaged"
    first = make_run(folder)
    first.hooks["round-closed", "CT", 3] = lambda event: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        first.loop().run()
    _damage(folder / "state" / "CT" / "round-000003" / victim)
    second = make_run(folder)
    second.loop().run()
    assert [event.group for event in second.kinds("round-closed")].count("CT") == 3
    (told,) = second.kinds("state-damaged")
    assert told.message == "The state of group CT is damaged after round 2; it goes on from there."
    _require_the_same(FederationOutcome.load(folder), FederationOutcome.load(tmp_path / "whole"))


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"folder": 7}', b"[]"])
def test_a_damaged_pointer_costs_nothing(tmp_path, content):
    run = make_run(tmp_path)
    run.loop().run()
    whole = FederationOutcome.load(tmp_path)
    (tmp_path / "state" / "CT" / "current.json").write_bytes(content)
    assert GroupStateStore(tmp_path / "state").load("CT").round_number == 5
    make_run(tmp_path).loop().run()
    _require_the_same(FederationOutcome.load(tmp_path), whole)


def test_where_both_kept_rounds_are_damaged_it_says_so(tmp_path):
    make_run(tmp_path).loop().run()
    for number in (4, 5):
        _damage(tmp_path / "state" / "CT" / f"round-00000{number}" / "model.safetensors")
    with pytest.raises(BadInputError, match=r"federation\.state-unreadable"):
        make_run(tmp_path).loop().run()


def test_damaged_history_and_configuration_are_no_crash(tmp_path, caplog):
    make_run(tmp_path).loop().run()
    (tmp_path / "state" / "CT" / "history" / "000002.json").write_text("[{")
    numbers = {row.round_number for row in FederationOutcome.load(tmp_path).groups["CT"].history}
    assert numbers == {1, 3, 4, 5}
    assert "left out" in caplog.text
    (tmp_path / "state" / "federation.json").write_text("{")
    for work in (lambda: FederationOutcome.load(tmp_path), lambda: make_run(tmp_path).loop().run()):
        with pytest.raises(BadInputError, match=r"federation\.state-unreadable"):
            work()


def test_an_unfinished_line_does_not_swallow_the_next_event(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).emit(Event("waiting", "one"))
    with path.open("ab") as file:
        file.write(b'{"event": "wai')
    log = EventLog(path)
    log.emit(Event("waiting", "two"))
    log.emit(Event("waiting", "three"))
    assert [event["message"] for event in read_events(path)] == ["one", "two", "three"]
    path.write_bytes(b"\xff\xfe\n[1]\n" + path.read_bytes())
    assert len(read_events(path)) == 3


def test_a_run_goes_on_where_its_events_cannot_be_written(tmp_path, caplog):
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer()})
    (tmp_path / "events.jsonl").mkdir()
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    assert "could not be written" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_ends_the_run_in_words_and_the_next_start_goes_on(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(tmp_path, federation(), {"a": AddingTrainer()})
    run.hooks["round-closed", "CT", 1] = lambda event: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(CannotDoHereError, match=r"federation\.disk"):
            run.loop().run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert FederationOutcome.load(tmp_path).groups["CT"].rounds == 1
    Run(tmp_path, federation(), {"a": AddingTrainer()}).loop().run()
    assert_array_equal(FederationOutcome.load(tmp_path).groups["CT"].model["b"], np.full(4, 3.0, np.float32))


def test_a_round_that_finds_no_room_ends_the_run_in_words(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer()})
    (tmp_path / "state" / "CT").mkdir(parents=True)
    # as on a full disk, no folder can be made
    run.hooks["site-joined", "", 0] = lambda event: (tmp_path / "state" / "CT" / "working").write_text("in the way")
    with pytest.raises(CannotDoHereError, match=r"federation\.disk"):
        run.loop().run()
    assert (run.events[-1].event, run.events[-1].code) == ("failed", "federation.disk")


def test_whatever_ends_a_run_is_told_without_its_text(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer()})
    loop = run.loop()

    def broken(network, seed):
        raise RuntimeError("/data/Doe^Jane is broken")

    loop._make_model = broken
    with pytest.raises(RuntimeError):
        loop.run()
    fold = RunFold(tmp_path)
    fold.update()
    assert (fold.view.stage, fold.view.code) == ("failed", "run.failed")
    assert "(RuntimeError)" in fold.view.words
    assert "Doe" not in (tmp_path / "events.jsonl").read_text(encoding="utf-8")


def test_a_second_start_in_one_process_leaves_the_first_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("FedSegCore.federation.rounds._LOCK_S", 0.05)
    run_in_process(federation(rounds=1), {"a": AddingTrainer()}, tmp_path, make_model=make_model)
    (tmp_path / "messages").mkdir(exist_ok=True)
    (tmp_path / "messages" / "waiting").write_bytes(b"of the first")
    before = (tmp_path / "state" / "federation.json").read_bytes()
    with FileLock(tmp_path / "state" / "lock"), pytest.raises(CannotDoHereError, match=r"federation\.run-busy"):
        run_in_process(federation(rounds=2), {"a": AddingTrainer()}, tmp_path, make_model=make_model)
    assert (tmp_path / "messages" / "waiting").read_bytes() == b"of the first"
    assert (tmp_path / "state" / "federation.json").read_bytes() == before


def test_a_run_is_driven_by_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("FedSegCore.federation.rounds._LOCK_S", 0.05)
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer()})
    loop = run.loop()
    with FileLock(tmp_path / "state" / "lock"), pytest.raises(CannotDoHereError, match=r"federation\.run-busy"):
        loop.run()
    run.loop().run()
    assert_array_equal(FederationOutcome.load(tmp_path).groups["CT"].model["b"], np.ones(4, np.float32))


def test_memory_does_not_grow_with_rounds(tmp_path, monkeypatch):
    """Of 200 rounds the last 80 keep next to nothing; one round's model is 4 kB, its messages and records more."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    trainer = AddingTrainer(step=0.01)
    # what the test's own trainer remembers does not count
    trainer.received = _Nothing()
    run = Run(tmp_path, federation(rounds=200, aggregation={"rule": "flames"}), {"a": trainer})
    held: dict[int, int] = {}

    def measure(event):
        if event.event == "round-closed" and event.round_number in (100, 120, 200):
            if event.round_number == 100:
                tracemalloc.start()
            gc.collect()
            # pathlib interns names: in a long test run, the interpreter's table of them may double just then (7 MB)
            traced = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, pathlib.__file__)])
            held[event.round_number] = sum(one.size for one in traced.statistics("filename"))

    loop = FederationLoop(
        run.grid, run.config, tmp_path, on_event=measure,
        make_model=lambda network, seed: {"w": np.zeros(1000, np.float32)}, clock=run.clock, sleep=run.clock.sleep,
    )  # fmt: skip
    try:
        loop.run()
    finally:
        tracemalloc.stop()
    growth = held[200] - held[120]
    assert growth < 40_000, growth


class _Nothing(dict):
    def __setitem__(self, key, value):
        pass
