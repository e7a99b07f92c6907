"""What people at a site want of it: hours, pause, settings, leaving, forgetting; and the state that others read."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock
from gated_site import ask, entries, only_a_code, order, train
from hypothesis import given
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.messages import read_result, write_query
from FedSegCore.federation.site import control
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import CohortRead, ControlChanged, PolicyChanged, Refused
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.policy import SitePolicy, write_policy
from FedSegCore.federation.site.schedule import next_change, within
from FedSegCore.federation.site.state import site_state
from FedSegCore.federation.site.status import SiteStatus, is_running, this_process, write_status
from FedSegCore.federation.site.trainer_keeper import wanted_settings

Served = tuple[SiteFolder, bytes]
NIGHT = "19:00-07:00"


@pytest.mark.parametrize(
    ("hours", "clock", "inside", "change"),
    [
        (NIGHT, "2026-03-01 18:59", False, "2026-03-01 19:00"),
        (NIGHT, "2026-03-01 19:00", True, "2026-03-02 07:00"),
        (NIGHT, "2026-03-01 00:30", True, "2026-03-01 07:00"),
        (NIGHT, "2026-03-01 07:00", False, "2026-03-01 19:00"),
        ("12:00-13:30", "2026-03-01 12:59", True, "2026-03-01 13:30"),
        ("12:00-13:30", "2026-03-01 13:30", False, "2026-03-02 12:00"),
        ("22:00-00:00", "2026-12-31 23:59", True, "2027-01-01 00:00"),
    ],
)
def test_hours_also_over_midnight(hours: str, clock: str, inside: bool, change: str):
    now = datetime.fromisoformat(clock)
    assert within(hours, now) is inside
    assert next_change(hours, now) == datetime.fromisoformat(change)


@given(st.datetimes(), st.times(), st.times())
def test_the_next_change_is_the_first_at_which_it_changes(now, start, end):
    if (start.hour, start.minute) == (end.hour, end.minute):
        return
    hours = f"{start:%H:%M}-{end:%H:%M}"
    if now.year > 9990:
        return
    change = next_change(hours, now)
    assert change > now
    assert (change - now).total_seconds() <= 86400
    assert within(hours, change) is not within(hours, now)


def test_pause_hours_and_leaving_say_why(site: SiteFolder):
    noon = datetime(2026, 3, 1, 12, 0)
    assert control.halt_now(site, noon) is None
    control.change(site, hours=NIGHT)
    halt = control.halt_now(site, noon)
    assert halt is not None
    assert (halt.code, halt.until) == ("site.paused", datetime(2026, 3, 1, 19, 0))
    assert control.halt_now(site, datetime(2026, 3, 1, 23, 0)) is None
    control.pause(site)
    control.pause(site)
    assert control.halt_now(site, datetime(2026, 3, 1, 23, 0)).until is None
    control.resume(site)
    assert control.read_control(site).hours == NIGHT
    control.leave(site)
    assert control.halt_now(site, noon).code == "site.left"
    with pytest.raises(UsageError, match=r"site\.has-left"):
        control.resume(site)
    changes = [entry.what for entry in entries(site) if isinstance(entry, ControlChanged)]
    assert changes == ["paused", "resumed", "leaving"]
    for wrong in ({"hours": "19-07"}, {"hours": "07:00-07:00"}, {"cores_free": -1}, {"device": "tpu"}):
        with pytest.raises(UsageError, match=r"options\.invalid"):
            control.change(site, **wrong)
    # who asked for a pause must not be ignored because a file was damaged
    site.control_file.write_text("{")
    assert control.halt_now(site, noon).code == "site.paused"
    with pytest.raises(BadInputError, match=r"control\.damaged"):
        control.change(site, device="cpu")
    assert control.halt_now(site, noon).code == "site.paused"
    control.pause(site)
    assert control.read_control(site).paused


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_a_paused_site_refuses_by_a_code_and_gives_up_what_it_trains(served: Served):
    site, _ = served
    control.pause(site)
    assert only_a_code(train(site, order())) == "site.paused"
    assert entries(site)[-1] == Refused(code="site.paused")
    control.resume(site)
    answers: list[str] = []
    long = order(steps_per_round=100_000)
    thread = threading.Thread(target=lambda: answers.append(only_a_code(train(site, long))))
    thread.start()
    deadline = time.monotonic() + 60.0
    while json.loads(site.progress.read_bytes())["state"] != "training" and time.monotonic() < deadline:
        time.sleep(0.05)
    told = json.loads(site.progress.read_bytes())
    assert (told["state"], told["round"], told["rounds"]) == ("training", 1, 2)
    before = time.monotonic()
    control.pause(site)
    thread.join(60.0)
    assert answers == ["site.paused"]
    assert time.monotonic() - before < 60.0  # the whole round takes many minutes
    assert "problem" not in json.loads(site.progress.read_bytes())
    control.change(site, paused=False, leaving=True)
    assert only_a_code(train(site, order())) == "site.left"


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_a_case_whose_consent_is_taken_back_is_in_no_further_round(served: Served):
    """The real trainer, which keeps the cohort in memory, reads it anew."""
    site, _ = served
    listed = json.loads(site.cohort.read_text())
    listed["cases"].append({**listed["cases"][0], "case": "c9", "patient": "p9"})
    site.cohort.write_text(json.dumps(listed))
    first, _, _ = read_result(train(site, order()))
    listed["cases"].pop()
    site.cohort.write_text(json.dumps(listed))
    second, _, _ = read_result(train(site, order()))
    third, _, _ = read_result(train(site, order()))
    assert (first.num_examples, second.num_examples, third.num_examples) == (2, 1, 1)
    read = [entry.training_cases for entry in entries(site) if isinstance(entry, CohortRead)]
    assert read == [2, 1]
    site.cohort.unlink()
    assert only_a_code(train(site, order())) == "cohort.none"
    assert json.loads(site.progress.read_bytes())["problem"]["code"] == "cohort.none"


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_a_problem_that_was_cured_is_gone_with_the_next_query_that_is_answered(served: Served):
    site, _ = served
    standing(site)
    cohort = site.cohort.read_text()

    def state() -> tuple[str, str]:
        found = site_state(site)
        return found.state, found.code

    site.cohort.unlink()
    assert only_a_code(ask(site, write_query(), "query")) == "cohort.none"
    assert state() == ("problem", "cohort.none")
    site.cohort.write_text(cohort)
    ask(site, write_query(), "query")
    assert state() == ("connected", "")
    # what kept a round from being trained is not cured by an answer to a query
    assert only_a_code(train(site, order(epochs=90, steps_per_round=None))) == "policy.epochs"
    ask(site, write_query(), "query")
    assert state() == ("problem", "policy.epochs")


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_a_changed_policy_is_journalled_before_anything_is_answered_under_it(served: Served):
    site, _ = served
    kept = site.policy()
    stricter = kept.privacy.model_copy(update={"minimum_cases": 7})
    site.policy_file.write_text(SitePolicy(privacy=stricter, limits=kept.limits).model_dump_json())
    assert only_a_code(train(site, order())) == "gate.too-few-cases"
    kinds = [entry.kind for entry in entries(site)]
    assert kinds[:2] == ["enrolled", "policy-changed"]
    write_policy(site.policy_file, kept)
    train(site, order())
    changed = [entry.minimum_cases for entry in entries(site) if isinstance(entry, PolicyChanged)]
    assert changed == [7, 1]


def standing(site: SiteFolder, **given: object) -> None:
    pid, started = this_process()
    told = {"pid": pid, "started": started, "processes": "connected", "was_connected": True, **given}
    write_status(site, SiteStatus.model_validate(told))


def test_a_power_cut_takes_back_no_pause_and_leaves_no_journal_without_its_end(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names reach the disk in their folder's own time: a head that lagged by several lines looked like a forged end."""
    synced: list[tuple[str, bytes]] = []

    def sync(folder: Path) -> None:
        file = folder / ("head.json" if folder.name == "journal" else "control.json")
        synced.append((file.name, file.read_bytes()))

    monkeypatch.setattr("FedSegCore.common.files.sync_folder", sync)
    control.pause(site)
    assert [name for name, _ in synced] == ["control.json", "head.json"]
    assert b'"paused": true' in synced[0][1]
    assert synced[1][1] == (site.path / "journal" / "head.json").read_bytes()


def test_a_site_that_runs_is_found_also_after_its_clock_was_set(site: SiteFolder) -> None:
    """Linux reckons when a process began from the present time: set by an hour, it is another process's start."""
    _, started = this_process()
    standing(site, started=started - 3600.0)
    assert (is_running(site), site_state(site).running) == (False, False)
    with FileLock(site.process_lock):
        assert (is_running(site), site_state(site).running) == (True, True)
        with pytest.raises(UsageError, match=r"site\.running"):
            control.forget(site)
        standing(site, started=started - 3600.0, processes="ended")
        assert not is_running(site)


def told(site: SiteFolder, **progress: object) -> None:
    site.progress.write_text(json.dumps({"state": "idle", "round": 0, "rounds": 0, "time": 1000.0, **progress}))


def test_every_state_has_words(site: SiteFolder, tmp_path: Path):
    def state() -> tuple[str, str]:
        found = site_state(site)
        return found.state, found.words

    assert site_state(tmp_path / "nowhere").state == "not-a-member"
    assert state()[0] == "request-sent"
    standing(site, processes="retrying", was_connected=False, code="site.not-admitted", what="x", remedy="y")
    assert state() == ("request-sent", "Waiting to be admitted by the coordinator.")
    standing(site, processes="ended")
    assert state()[0] == "admitted"
    standing(site, pid=2**22 + 1)
    assert state()[0] == "admitted"
    standing(site, last_message=5.0)
    assert state() == ("connected", "Connected; no round has begun yet.")
    told(site)
    site.notice.write_text(json.dumps({"missing": 2, "time": 1001.0}))
    assert state() == ("waiting", "Waiting for 2 more sites.")
    told(site, state="training", round=3, rounds=10, fraction=0.4, time=1002.0, set_aside=2)
    found = site_state(site)
    assert (found.state, found.words, found.fraction) == ("training", "Training round 3 of 10.", 0.4)
    assert (found.running, found.last_message, found.set_aside) == (True, 5.0, 2)
    told(site, round=3, rounds=10, time=1003.0)
    assert state() == ("connected", "Round 3 of 10 was answered; the other sites are awaited.")
    told(site, round=3, rounds=10, problem={"code": "gate.norm", "what": "Too long.", "remedy": "Look."})
    found = site_state(site)
    assert (found.state, found.code, found.words, found.remedy) == ("problem", "gate.norm", "Too long.", "Look.")
    told(site, round=10, rounds=10, time=1004.0)
    assert state()[0] == "finished"
    standing(site, processes="retrying", code="site.unreachable", what="Not reached.", remedy="Wait.")
    assert state() == ("problem", "Not reached.")
    standing(site)
    control.change(site, hours=NIGHT)
    noon = site_state(site, datetime(2026, 3, 1, 12, 0))
    assert (noon.state, noon.words[:33]) == ("paused", "The site is paused until 19:00: i")
    control.pause(site)
    assert state()[0] == "paused"
    control.leave(site)
    assert state()[0] == "left"
    assert "new invitation" in site_state(site).remedy


def test_a_pause_does_not_hide_that_nothing_runs_or_that_the_site_is_not_admitted(site: SiteFolder):
    control.change(site, hours=NIGHT)
    noon = datetime(2026, 3, 1, 12, 0)
    found = site_state(site, noon)
    assert (found.state, found.running) == ("request-sent", False)
    assert found.words.startswith("This site is set up; the coordinator has not yet let it in. It is also paused until")
    standing(site, processes="paused", was_connected=False)
    found = site_state(site, noon)
    assert (found.state, found.running) == ("request-sent", True)
    assert "paused until 19:00: it trains at 19:00-07:00 only." in found.words
    standing(site, processes="ended")
    found = site_state(site, noon)
    assert (found.state, found.remedy) == ("admitted", "Start it to take part.")
    assert "it is not running. It is also paused until 19:00" in found.words
    control.pause(site)
    assert site_state(site, noon).remedy == "Start it to take part. Resume it when it may go on."
    standing(site, processes="ended", code="site.expelled", what="Shut out.", remedy="Ask.")
    found = site_state(site, noon)
    assert (found.state, found.words) == ("problem", "Shut out. The site is not running.")
    standing(site, processes="paused")
    assert site_state(site, noon).state == "paused"


def test_forgetting_leaves_the_journal_and_nothing_else(site: SiteFolder, fedseg: Callable[..., SimpleNamespace]):
    standing(site)
    (site.path / "store" / "cases").mkdir(parents=True)
    (site.path / "training" / "remainder").mkdir(parents=True)
    (site.path / "mine.txt").write_text("not ours")
    # killed while it wrote a new key, and before a client app had read its token
    (site.path / ".writing-x").mkdir()
    (site.path / ".writing-x" / "key").write_text("secret")
    (site.path / "token-x").write_text("secret")
    assert fedseg("site", "forget", site.path, "--yes").code == 2
    standing(site, processes="ended")
    images = site.cohort.parent
    done = fedseg("site", "forget", site.path, "--yes")
    assert done.code == 0
    assert "journal, mine.txt" in done.err
    assert sorted(path.name for path in site.path.iterdir()) == ["journal", "mine.txt"]
    assert (images / "cohort.json").exists()
    assert [entry.kind for entry in entries(site)] == ["enrolled", "control-changed"]
    assert fedseg("site", "journal", site.path, "--verify").code == 0
    assert fedseg("site", "status", site.path).code == 0
    assert fedseg("site", "run", site.path).code == 3


def test_the_commands_of_control(site: SiteFolder, fedseg: Callable[..., SimpleNamespace]):
    assert fedseg("site", "set", site.path, "--hours", NIGHT, "--cores-free", 1, "--device", "cpu").code == 0
    shown = fedseg("site", "set", site.path, "--json")
    assert json.loads(shown.out)["hours"] == NIGHT
    assert json.loads(fedseg("site", "set", site.path, "--hours", "any", "--json").out)["hours"] is None
    assert fedseg("site", "set", site.path, "--hours", "late").code == 2
    assert fedseg("site", "pause", site.path).code == 0
    assert "It is also paused" in json.loads(fedseg("site", "status", site.path, "--json").out)["words"]
    assert fedseg("site", "resume", site.path).code == 0
    left = fedseg("site", "leave", site.path, "--yes")
    assert left.code == 0
    assert "tell the coordinator" in left.err
    refused = fedseg("site", "run", site.path)
    assert (refused.code, "site.has-left" in refused.err) == (2, True)


def test_a_site_runs_once_only(site: SiteFolder):
    pid, started = os.getppid(), psutil.Process(os.getppid()).create_time()
    standing(site, pid=pid, started=started)
    with pytest.raises(CannotDoHereError, match=r"site\.already-running"):
        SiteProcesses(site).start_trainer()


def test_a_pause_waits_until_every_message_in_hand_is_answered(site: SiteFolder):
    """A query that is answered while a round is trained does not make SuperNode end before the round's answer left."""
    log = site.logs / "supernode.log"
    log.touch()
    processes = SiteProcesses(site)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    processes._supernode = sleeper
    try:
        with log.open("a") as lines:
            lines.write("Receiving: train message (ID: 1)\nReceiving: query message (ID: 2)\nSent successfully\n")
        control.pause(site)
        processes.tick()
        assert sleeper.poll() is None
        with log.open("a") as lines:
            lines.write("Sent successfully\n")
        answered = time.monotonic()
        processes.tick()
        assert sleeper.poll() is None  # the coordinator has yet to fetch the answer
        while sleeper.poll() is None:
            assert time.monotonic() - answered < 20.0
            time.sleep(0.1)
            processes.tick()
        assert time.monotonic() - answered > 3.0  # a server app asks every three seconds
        assert processes.processes() == []
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_trainer_leaves_cores_free(site: SiteFolder):
    settings = site.settings().model_copy(update={"threads": None})
    site.settings_file.write_text(settings.model_dump_json())
    assert wanted_settings(site) == ("cpu", None)
    control.change(site, cores_free=1, device="cuda")
    assert wanted_settings(site) == ("cuda", max(1, (os.cpu_count() or 1) - 1))
    control.change(site, cores_free=1000)
    assert wanted_settings(site)[1] == 1


def test_a_site_can_be_set_up_before_it_has_cases(
    tmp_path: Path, coordinator: CoordinatorFolder, fedseg: Callable[..., SimpleNamespace]
):
    made = fedseg(
        *("site", "init", tmp_path / "s", "--name", "north", "--coordinator", "127.0.0.1:9443"),
        *("--certificate", coordinator.authority_certificate),
    )
    assert (made.code, "site cohort add" in made.err) == (0, True)
    assert SiteFolder(tmp_path / "s").cohort == tmp_path / "s" / "store" / "cohort.json"
    assert "0 cases to train on" in fedseg("site", "cohort", "list", tmp_path / "s").err
