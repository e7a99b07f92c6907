"""What a coordinator is shown of its federation: terminal, page, TensorBoard files, logs; expected values by hand."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.metrics_files import MetricsFiles
from FedSegCore.federation.coordinator.monitoring import Monitor
from FedSegCore.federation.coordinator.run_view import RunFold, RunView
from FedSegCore.federation.coordinator.runs import RunStatus
from FedSegCore.federation.coordinator.status import ServerView, byte_words, duration_words, group_words, site_words
from FedSegCore.federation.events import EVENTS_FILE
from FedSegCore.federation.log_tail import LARGEST_LOG
from FedSegCore.federation.process_log import OURS, JsonLines, log_to_json

NOW = 1_800_000_000.0


@pytest.fixture
def coordinator(tmp_path) -> CoordinatorFolder:
    folder = CoordinatorFolder.create(tmp_path / "coord", CoordinatorSettings(federation="liver", hosts=("localhost",)))
    folder.keep_sites(
        tuple(AdmittedSite(name=name, node_id=n, fingerprint="f") for n, name in enumerate(("north", "south", "shy")))
    )
    return folder


def told(fold: RunFold, *events: dict) -> RunView:
    for n, event in enumerate(events):
        fold.take({"time": NOW + n, "message": "words", "group": "", "round": 0, "rounds": 0, **event})
    return fold.view


def joined(site: str, modality: str = "CT") -> dict:
    return {"event": "site-joined", "site": site, "modality": modality, "training_cases": 4}


def in_round(kind: str, number: int, group: str = "CT", **more: object) -> dict:
    return {"event": kind, "group": group, "round": number, "rounds": 5, **more}


def test_late_resting_failed_refused_and_away_are_told_apart(tmp_path):
    view = told(
        RunFold(tmp_path),
        *(joined("a"), joined("b"), joined("c"), joined("d"), joined("f")),
        in_round("round-started", 1, sites=["a", "b", "c", "f"], deadline_s=60.0),
        in_round("site-failed", 1, site="f", code="site.paused"),
        in_round("site-answered", 1, site="a", payload_bytes=100, loss=0.5, seconds=2.0, scores={"liver": 0.4}),
        in_round("site-failed", 1, site="b", code="site.late"),
        in_round("site-failed", 1, site="c", code="gate.norm"),
        in_round("round-closed", 1, loss=0.5, bytes_sent=900),
        in_round("round-started", 2, sites=["a", "c"], deadline_s=60.0),
        {"event": "site-left", "site": "c"},
        {"event": "site-refused", "site": "e", "code": "site.flower-version"},
        {"event": "site-refused", "site": "a", "code": "site.name-taken"},
    )
    states = {name: (site.state, site.code) for name, site in view.sites.items()}
    assert states == {
        "a": ("asked", ""),
        "b": ("resting", "site.late"),
        "c": ("away", ""),
        "d": ("here", ""),
        "e": ("refused", "site.flower-version"),
        "f": ("paused", "site.paused"),
    }
    group = view.groups["CT"]
    assert (group.done, group.rounds, group.open.number, group.stage) == (1, 5, 2, "training")
    assert (group.closed[0].bytes_sent, group.closed[0].bytes_received) == (900, 100)
    assert group.closed[0].dice() == {"CT": {"liver": 0.4}}
    assert [site.name for site in view.sites_of("CT")] == ["a", "b", "c", "d", "f"]
    assert group_words(group, NOW + 11 + 10) == "round 2 of 5: 0 of 2 answered, 50 s left"
    assert "another version of Flower" in site_words(view.sites["e"], NOW + 71)
    assert site_words(view.sites["f"], NOW + 6 + 12).startswith("paused: by its people")


def test_a_group_that_waits_says_for_how_many_and_of_which_kind(tmp_path):
    view = told(RunFold(tmp_path), joined("a"), in_round("waiting", 1, missing=2))
    assert group_words(view.groups["CT"], NOW) == "after round 0 of 5: waiting for 2 more CT sites"
    assert view.sites_of("CT")[0].state == "here"


def test_a_round_that_was_done_again_after_a_crash_counts_once(tmp_path):
    once = [
        in_round("round-started", 1, sites=["a"]),
        in_round("site-answered", 1, site="a", loss=0.5),
        in_round("round-closed", 1, loss=0.5),
    ]
    cut_off = [in_round("round-started", 2, sites=["a"]), in_round("site-answered", 2, site="a", loss=9.0)]
    again = [
        in_round("round-started", 2, sites=["a"]),
        in_round("site-answered", 2, site="a", loss=0.25),
        in_round("round-closed", 2, loss=0.25),
    ]
    view = told(RunFold(tmp_path), joined("a"), *once, *cut_off, joined("a"), *again, {"event": "finished"})
    assert [(r.number, r.loss, len(r.sites)) for r in view.groups["CT"].closed] == [(1, 0.5, 1), (2, 0.25, 1)]
    assert (view.sites["a"].answered, view.stage) == (2, "finished")


def test_a_run_that_was_stopped_waits_for_no_answer(tmp_path):
    view = told(
        RunFold(tmp_path),
        joined("a"),
        in_round("round-started", 1, sites=["a"], deadline_s=60.0),
        {"event": "failed", "code": "run.stopped", "message": "The run was stopped."},
        {"event": "failed", "code": "run.failed", "message": "An unexpected error."},
    )
    assert (view.stage, view.code, view.words) == ("failed", "run.stopped", "The run was stopped.")
    assert site_words(view.sites["a"], NOW) == "here; nothing is asked of it now"
    assert group_words(view.groups["CT"], NOW) == "round 0 of 5 is done"


def test_nonsense_in_the_events_does_no_harm(tmp_path):
    strange = [{"event": "new-kind", "group": "CT"}, {}, in_round("round-started", 1, sites="a", deadline_s="soon")]
    assert told(RunFold(tmp_path), *strange).groups["CT"].open.deadline_s == 0.0


def test_words():
    said = [duration_words(s) for s in (-3, 12, 99, 150, 7200, 259200)]
    assert said == ["0 s", "12 s", "99 s", "2 min", "2 h", "3 days"]
    assert [byte_words(n) for n in (0, 999, 1500, 123_456, 2_500_000)] == ["0 B", "999 B", "1.5 kB", "123 kB", "2.5 MB"]


@pytest.fixture
def finished(coordinator) -> CoordinatorFolder:
    """A run of two groups in which "south" gives nothing in round 2 and "shy" never does."""
    trainers = {
        "north": AddingTrainer("CT"),
        "south": AddingTrainer("CT", wrong={2: "nan"}),
        "shy": AddingTrainer("US", wrong=dict.fromkeys(range(1, 9), "code")),
    }
    Run(coordinator.runs / "first", federation(rounds=3), trainers).loop().run()
    return coordinator


def test_status_works_from_files_while_nothing_is_served(finished, fedseg):
    done = fedseg("coordinator", "status", finished.path, "--json")
    assert done.code == 0, done.err
    status = json.loads(done.out)
    assert (status["serving"], status["run_names"]) == (False, ["first"])
    assert [(site["name"], site["connected"]) for site in status["sites"]] == [
        ("north", None), ("south", None), ("shy", None)]  # fmt: skip
    rounds = status["run"]["groups"]["CT"]["closed"]
    assert [len([s for s in r["sites"].values() if not s["code"]]) for r in rounds] == [2, 1, 2]
    assert [r["dice"]["CT"]["liver"] for r in rounds] == pytest.approx([0.1, 0.2, 0.3])
    # the model has 6 + 4 floats and one long: 48 bytes and what their serialisation adds, to two sites
    assert all(r["bytes_sent"] > 2 * 48 and r["bytes_received"] > 48 for r in rounds)
    for words in ("not running", "north", "all 3 rounds done", "ended after round 0: no usable answer", "shy"):
        assert words in done.err
    assert fedseg("coordinator", "status", finished.path, "--run", "second").code == BadInputError.exit_code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.timeout(120)
def test_a_watched_status_follows_the_run_until_ctrl_c(finished):
    """In a terminal: what is new shows by itself, Ctrl+C ends it well and leaves the last state to read."""
    ours, its = os.openpty()
    command = [sys.executable, "-m", "FedSegCore.cli.main", "coordinator", "status", str(finished.path), "--watch"]
    terminal = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "60", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=terminal, start_new_session=True)
    os.close(its)
    seen = b""

    def read_until(words: bytes) -> None:
        nonlocal seen
        while words not in seen:
            seen += os.read(ours, 65536)

    try:
        read_until(b"all 3 rounds done")
        assert b"latecomer" not in seen
        with (finished.runs / "first" / EVENTS_FILE).open("a", encoding="utf-8") as events:
            refused = {"event": "site-refused", "site": "latecomer", "code": "gate.norm", "group": "", "round": 0}
            events.write(json.dumps({**refused, "time": time.time(), "message": "words", "rounds": 0}) + "\n")
        read_until(b"latecomer")
        process.send_signal(signal.SIGINT)
        seen = b""
        read_until(b"all 3 rounds done")
        assert process.wait(30.0) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"Traceback" not in seen


def test_the_page_is_whole_reads_itself_again_and_runs_nothing(finished):
    monitor = Monitor(finished, ask=lambda _: ServerView(True, frozenset({0}), {7: RunStatus("running", "", "")}))
    monitor.tick()
    page = monitor.page.read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert '<meta http-equiv="refresh" content="15">' in page
    assert "<script" not in page
    assert "http://" not in re.sub(r'xmlns[:a-z]*="[^"]*"', "", page)
    for words in ("The coordinator is serving", "3 of 3", "north", "training.not-finite", "trainer.gone"):
        assert words in page
    cells = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td>', page)
    assert cells[:3] == [("north", "yes"), ("shy", "no"), ("south", "no")]
    monitor.close()
    assert "The coordinator is not running" in monitor.page.read_text(encoding="utf-8")
    assert list(finished.path.glob(".writing-*")) == []


def test_the_page_is_renewed_when_something_happens_and_every_minute(coordinator):
    clock = [100.0]
    asked = []
    monitor = Monitor(coordinator, ask=lambda _: asked.append(clock[0]) or ServerView(True), clock=lambda: clock[0])
    for seconds in (0, 1, 30, 55, 61):
        clock[0] = 100.0 + seconds
        monitor.tick()
    assert asked == [100.0, 161.0]
    Run(coordinator.runs / "first", federation(rounds=1), {"north": AddingTrainer("CT")}).loop().run()
    clock[0] += 6.0
    monitor.tick()
    assert asked[2:] == [167.0]


@pytest.mark.parametrize(
    ("kind", "entry", "value"),
    [
        ("round-closed", "round", float("nan")),
        ("round-closed", "bytes_sent", 1e300),
        ("round-closed", "loss", 10**400),
        ("round-started", "rounds", float("inf")),
        ("site-answered", "scores", {"liver": float("nan")}),
        ("site-joined", "training_cases", float("nan")),
        ("site-joined", "site", "\ud800"),
    ],
)
def test_a_damaged_event_does_not_end_the_coordinator(coordinator, kind, entry, value):
    told = {"time": 1e9, "event": kind, "group": "CT", "round": 1, "rounds": 3, "site": "north", "message": "words"}
    run = coordinator.runs / "first"
    run.mkdir(parents=True)
    (run / EVENTS_FILE).write_text(json.dumps({**told, entry: value}) + "\n")
    clock = [100.0]
    monitor = Monitor(coordinator, ask=lambda _: ServerView(True), clock=lambda: clock[0])
    monitor.tick()
    Run(coordinator.runs / "second", federation(rounds=1), {"north": AddingTrainer("CT")}).loop().run()
    clock[0] += 6.0
    monitor.tick()
    monitor.close()
    assert "1 of 1" in monitor.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("damaged", ["sites.json", "coordinator.json"])
def test_a_page_that_cannot_be_made_does_not_end_the_coordinator(coordinator, damaged, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger(OURS), "propagate", True)
    clock = [100.0]
    monitor = Monitor(coordinator, ask=lambda _: ServerView(True), clock=lambda: clock[0])
    whole = (coordinator.path / damaged).read_text(encoding="utf-8")
    (coordinator.path / damaged).write_text("{", encoding="utf-8")
    monitor.tick()
    monitor.close()
    assert not monitor.page.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    (coordinator.path / damaged).write_text(whole, encoding="utf-8")
    clock[0] += 61.0
    monitor.tick()
    assert "The coordinator is serving" in monitor.page.read_text(encoding="utf-8")


def test_a_list_that_is_being_replaced_is_read_a_moment_later(coordinator, monkeypatch):
    """As on Windows, where a file cannot be read at the moment it is replaced."""
    read, refused = Path.read_bytes, {"sites.json": 3, "coordinator.json": 3}

    def refuse_at_first(self: Path) -> bytes:
        if refused.get(self.name, 0):
            refused[self.name] -= 1
            raise PermissionError(13, "in use")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse_at_first)
    assert coordinator.settings().federation == "liver"
    assert len(coordinator.sites()) == 3


def test_the_logs_of_a_coordinator_do_not_grow_without_end(coordinator):
    log = coordinator.logs / "superlink.log"
    log.write_bytes(b"x" * (LARGEST_LOG + 1))
    Monitor(coordinator, ask=lambda _: ServerView(True)).tick()
    assert sum(path.stat().st_size for path in coordinator.logs.iterdir()) <= LARGEST_LOG + 1
    assert log.stat().st_size == 0


def test_what_happens_is_logged_by_kind_round_and_code(coordinator, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger(OURS), "propagate", True)
    monitor = Monitor(coordinator, ask=lambda _: ServerView(True))
    trainers = {"north": AddingTrainer("CT"), "south": AddingTrainer("CT", wrong={2: "nan"})}
    Run(coordinator.runs / "first", federation(rounds=2), trainers).loop().run()
    with caplog.at_level(logging.INFO, logger=OURS):
        monitor.tick()
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    failed = [line for line in lines if line["event"] == "run.site-failed"]
    assert [(line["level"], line["code"], line["values"]) for line in failed] == [
        ("warning", "training.not-finite", [2, 2])
    ]
    assert [line["values"] for line in lines if line["event"] == "run.round-closed"] == [[1, 2], [2, 2]]
    assert "north" not in json.dumps(lines)


def test_tensorboard_reads_the_metrics_and_a_restart_writes_no_round_twice(finished):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):
        files = MetricsFiles(finished.runs / "first")
        fold = RunFold(finished.runs / "first")
        fold.update()
        files.write(fold.view)
        files.write(fold.view)
        files.close()
    read = reader.EventAccumulator(str(finished.runs / "first" / "metrics" / "CT")).Reload()
    dice = read.Scalars("dice/CT/liver")
    assert [point.step for point in dice] == [1, 2, 3]
    assert [point.value for point in dice] == pytest.approx([0.1, 0.2, 0.3])
    assert [point.value for point in read.Scalars("site_loss/north")] == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert [point.step for point in read.Scalars("site_loss/south")] == [1, 3]
    assert [point.value for point in read.Scalars("sites/missing")] == [0.0, 1.0, 0.0]
    assert dice[0].wall_time == pytest.approx(fold.view.groups["CT"].closed[0].closed)


def test_json_logs_have_codes_and_numbers_and_no_word_of_a_patient(tmp_path, restored_log):
    logger = logging.getLogger(f"{OURS}.some.place")
    log_to_json(tmp_path, "trainer")
    logger.warning("case %s took %d s", "Doe^Jane", 12)
    logger.error("%s", BadInputError("image.unreadable", "Doe-Jane.nii is broken", "Give another."))
    try:
        raise OSError("/data/Doe^Jane/scan.nii")
    except OSError:
        logger.exception("the request failed")
    logger.info("a case is not used", extra={"code": "case.empty"})
    text = (tmp_path / "trainer.jsonl").read_text(encoding="utf-8")
    assert "Doe" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "error", "error", "info"]
    assert {line["event"] for line in lines} == {"some.place"}
    assert lines[0]["values"] == [12]
    assert lines[1]["code"] == "image.unreadable"
    assert (lines[2]["message"], lines[2]["error"]) == ("the request failed", "OSError")
    assert lines[3]["code"] == "case.empty"
    assert (tmp_path / "trainer.jsonl").stat().st_mode & 0o077 == 0


def test_a_message_that_is_no_text_says_only_its_kind():
    record = logging.LogRecord(OURS, logging.INFO, "", 0, ValueError("Doe^Jane"), None, None)
    assert json.loads(JsonLines().format(record))["message"] == "ValueError"
