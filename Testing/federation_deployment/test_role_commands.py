"""``fedseg coordinator`` and ``fedseg site`` as a user types them: set up, admit, run, stop.

What serves, or is stopped, is a process of its own; other commands run in the tests' process.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from tiny_deployment import alive, family, write_cohort

from FedSegCore.federation.process_group import child_environment, free_ports
from FedSegCore.federation.site.keys import public_key_fingerprint, read_public_key
from FedSegCore.models.release import list_releases

Wait = Callable[..., None]
Fedseg = Callable[..., Any]

FEDERATION = """
name = "tiny"
rounds = 1
join_deadline_s = 90.0
round_deadline_s = 60.0
aggregation = { rule = "fedavg" }
training = { batch_size = 1, steps_per_round = 1, patch_size = [8, 16, 16] }

[networks.default.options]
channels = [4, 8]
strides = [2]
residual_units = 0

[preprocessing.CT]
modality = "CT"
window = [-100.0, 200.0]

[[contract.labels]]
name = "blob"
value = 1
type = { code = "10200004", meaning = "Liver" }
colour = [200, 80, 60]
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "FedSegCore.cli.main", *map(str, arguments)]


def status(fedseg: Fedseg, coordinator: Path) -> dict[str, Any]:
    done = fedseg("coordinator", "status", coordinator, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out.splitlines()[-1])


def set_up(fedseg: Fedseg, tmp_path: Path) -> tuple[Path, Path]:
    """Return the folders of a coordinator and of a site made by the two ``init`` commands."""
    fleet, control = free_ports(2)
    coordinator, site = tmp_path / "coordinator", tmp_path / "site"
    made = fedseg(
        *("coordinator", "init", coordinator, "--federation", "tiny", "--host", "localhost"),
        *("--listen", "127.0.0.1", "--port", fleet, "--control-port", control),
    )
    assert made.code == 0, made.err
    cohort = write_cohort(tmp_path / "images", seed=1)
    made = fedseg(
        *("site", "init", site, "--name", "north", "--coordinator", f"localhost:{fleet}"),
        *("--certificate", coordinator / "ca" / "ca.crt", "--cohort", cohort, "--device", "cpu", "--minimum-cases", 1),
    )
    assert made.code == 0, made.err
    assert "1 cases to train on, 1 to score on" in made.err
    return coordinator, site


def test_what_goes_wrong_is_told_by_exit_code_and_error_code(fedseg: Fedseg, tmp_path: Path) -> None:
    coordinator, site = set_up(fedseg, tmp_path)
    again = fedseg("coordinator", "init", coordinator, "--federation", "tiny", "--host", "localhost")
    assert (again.code, "coordinator.exists" in again.err) == (2, True)
    odd = fedseg("coordinator", "init", tmp_path / "new", "--federation", "*", "--host", "localhost")
    assert (odd.code, "options.invalid" in odd.err) == (2, True)
    idle = fedseg("coordinator", "stop", coordinator, 1)
    assert (idle.code, "coordinator.not-running" in idle.err) == (4, True)
    nowhere = fedseg("site", "run", tmp_path / "nowhere")
    assert (nowhere.code, "site.folder" in nowhere.err) == (3, True)
    assert str(tmp_path) not in nowhere.err
    assert site.is_dir()


def _require_that_a_run_can_be_stopped(
    fedseg: Fedseg, tmp_path: Path, coordinator: Path, environment: dict[str, str], log: IO[bytes], wait_until: Wait
) -> None:
    (tmp_path / "long.toml").write_text(FEDERATION.replace("rounds = 1", "rounds = 1000"))
    words = command("coordinator", "run", coordinator, tmp_path / "long.toml", "--name", "second")
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=log) as running:
        number = ""

        def begun() -> bool:
            nonlocal number
            going = [entry["run_id"] for entry in status(fedseg, coordinator)["runs"] if entry["stage"] == "running"]
            number = str(going[0]) if going else ""
            return bool(going)

        try:
            wait_until(begun, 120.0)
            stopped = fedseg("coordinator", "stop", coordinator, number)
            assert stopped.code == 0, stopped.err
            # who follows it is told, and nothing is published
            assert running.wait(60.0) == 4
        finally:
            running.kill()
    assert b"run.stopped" in (tmp_path / "commands.log").read_bytes()
    assert len(list_releases(coordinator / "releases")) == 2
    told = json.loads(fedseg("coordinator", "runs", coordinator, "--json").out)["runs"]
    assert [(entry["stage"], entry["code"]) for entry in told] == [("failed", "run.stopped"), ("finished", "")]
    again = fedseg("coordinator", "stop", coordinator, number)
    assert (again.code, f"Run {number} has ended already (stopped)." in again.err) == (0, True)
    unknown = fedseg("coordinator", "stop", coordinator, 1)
    assert (unknown.code, "coordinator.run-unknown" in unknown.err) == (3, True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the test stops the commands by signal")
def test_a_federation_by_commands(fedseg: Fedseg, tmp_path: Path, wait_until: Wait) -> None:
    coordinator, site = set_up(fedseg, tmp_path)
    (tmp_path / "federation.toml").write_text(FEDERATION)
    environment = child_environment(tmp_path, 1)
    log = (tmp_path / "commands.log").open("wb")
    served = [subprocess.Popen(command("coordinator", "start", coordinator), env=environment, stderr=log)]
    try:
        wait_until(lambda: status(fedseg, coordinator)["serving"], 60.0)
        words = ("coordinator", "admit", coordinator, site / "key.pub", "--name", "north", "--fingerprint")
        read_out = public_key_fingerprint(read_public_key(site / "key.pub"))
        admitted = fedseg(*words, read_out, "--json")
        assert admitted.code == 0, admitted.err
        fingerprint = json.loads(admitted.out.splitlines()[-1])["fingerprint"]
        assert fingerprint == read_out
        twice = fedseg(*words, read_out)
        assert (twice.code, "request.admitted" in twice.err) == (3, True)

        served.append(subprocess.Popen(command("site", "run", site), env=environment, stderr=log))
        run = fedseg(
            *("coordinator", "run", coordinator, tmp_path / "federation.toml"),
            *("--name", "first", "--json"),
        )
        assert run.code == 0, run.err
        done = json.loads(run.out.splitlines()[-1])
        assert done["outcome"] == "completed"
        assert (Path(done["folder"]) / "state").is_dir()
        # published at the end, and again on demand, under a key that serves nothing else
        again = fedseg("coordinator", "publish", coordinator, "first", "--json")
        assert json.loads(again.out.splitlines()[-1])["releases"][0].endswith("-v2")
        found = list_releases(coordinator / "releases")
        assert [release.card.version for release in found] == [2, 1]
        assert done["releases"] == [found[1].id]
        # a site that was set up without an invitation trusts nobody's releases; with one it takes the newest
        assert "north took nothing (release.no-key)" in run.err
        invited = (
            "coordinator",
            "invite",
            coordinator,
            tmp_path / "federation.toml",
            "--out",
            site / "invitation.json",
        )
        assert fedseg(*invited).code == 0
        sent = fedseg("coordinator", "deliver", coordinator, "first", "--json")
        assert sent.code == 0, sent.err
        assert json.loads(sent.out.splitlines()[-1])["received"] == {"north": [found[0].id]}
        assert [release.id for release in list_releases(site / "releases")] == [found[0].id]
        assert (coordinator / "release.key").stat().st_mode & 0o077 == 0
        for wrong in ("../first", "never"):
            refused = fedseg("coordinator", "publish", coordinator, wrong)
            assert refused.code in (2, 3), refused.err

        told = status(fedseg, coordinator)
        assert told["sites"] == [{"name": "north", "connected": True}]
        runs = [(entry["stage"], entry["outcome"]) for entry in told["runs"]]
        assert runs == [("finished", "completed")] * 3  # one that trained, two that delivered
        _require_that_a_run_can_be_stopped(fedseg, tmp_path, coordinator, environment, log, wait_until)
        started = [child for process in served for child in family(process.pid)]
        assert len(started) >= 5
        expelled = fedseg("coordinator", "expel", coordinator, "north", "--json")
        assert json.loads(expelled.out.splitlines()[-1])["name"] == "north"
        assert status(fedseg, coordinator)["sites"] == []
        assert fedseg("coordinator", "expel", coordinator, "north").code == 3
        for process in reversed(served):
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) == 0
        wait_until(lambda: not alive(started), 20.0)
    finally:
        for process in served:
            process.kill()
            process.wait()
        log.close()
