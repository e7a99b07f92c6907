"""``fedseg coordinator`` and ``fedseg site`` as a user types them: set up, admit, run, stop."""

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


def fedseg(tmp_path: Path, *arguments: object, limit_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
    environment = child_environment(tmp_path, 1)
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=limit_s)


def status(tmp_path: Path, coordinator: Path) -> dict[str, Any]:
    done = fedseg(tmp_path, "coordinator", "status", coordinator, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def set_up(tmp_path: Path) -> tuple[Path, Path]:
    """Return the folders of a coordinator and of a site made by the two ``init`` commands."""
    fleet, control = free_ports(2)
    coordinator, site = tmp_path / "coordinator", tmp_path / "site"
    made = fedseg(
        *(tmp_path, "coordinator", "init", coordinator, "--federation", "tiny", "--host", "localhost"),
        *("--listen", "127.0.0.1", "--port", fleet, "--control-port", control),
    )
    assert made.returncode == 0, made.stderr
    cohort = write_cohort(tmp_path / "images", seed=1)
    made = fedseg(
        *(tmp_path, "site", "init", site, "--name", "north", "--coordinator", f"localhost:{fleet}"),
        *("--certificate", coordinator / "ca" / "ca.crt", "--cohort", cohort, "--device", "cpu", "--minimum-cases", 1),
    )
    assert made.returncode == 0, made.stderr
    assert "1 cases to train on, 1 to score on" in made.stderr
    return coordinator, site


def test_what_goes_wrong_is_told_by_exit_code_and_error_code(tmp_path: Path) -> None:
    coordinator, site = set_up(tmp_path)
    again = fedseg(tmp_path, "coordinator", "init", coordinator, "--federation", "tiny", "--host", "localhost")
    assert (again.returncode, "coordinator.exists" in again.stderr) == (2, True)
    odd = fedseg(tmp_path, "coordinator", "init", tmp_path / "new", "--federation", "*", "--host", "localhost")
    assert (odd.returncode, "options.invalid" in odd.stderr) == (2, True)
    idle = fedseg(tmp_path, "coordinator", "stop", coordinator, 1)
    assert (idle.returncode, "coordinator.not-running" in idle.stderr) == (4, True)
    nowhere = fedseg(tmp_path, "site", "run", tmp_path / "nowhere")
    assert (nowhere.returncode, "site.folder" in nowhere.stderr) == (3, True)
    assert str(tmp_path) not in nowhere.stderr
    assert site.is_dir()


def _require_that_a_run_can_be_stopped(
    tmp_path: Path, coordinator: Path, environment: dict[str, str], log: IO[bytes], wait_until: Wait
) -> None:
    (tmp_path / "long.toml").write_text(FEDERATION.replace("rounds = 1", "rounds = 1000"))
    words = command("coordinator", "run", coordinator, tmp_path / "long.toml", "--name", "second")
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=log) as running:
        number = ""

        def begun() -> bool:
            nonlocal number
            going = [entry["run_id"] for entry in status(tmp_path, coordinator)["runs"] if entry["stage"] == "running"]
            number = str(going[0]) if going else ""
            return bool(going)

        try:
            wait_until(begun, 120.0)
            stopped = fedseg(tmp_path, "coordinator", "stop", coordinator, number)
            assert stopped.returncode == 0, stopped.stderr
            # who follows it is told, and nothing is published
            assert running.wait(60.0) == 4
        finally:
            running.kill()
    assert b"run.stopped" in (tmp_path / "commands.log").read_bytes()
    assert len(list_releases(coordinator / "releases")) == 2
    again = fedseg(tmp_path, "coordinator", "stop", coordinator, number)
    assert (again.returncode, f"Run {number} has ended already (stopped)." in again.stderr) == (0, True)
    unknown = fedseg(tmp_path, "coordinator", "stop", coordinator, 1)
    assert (unknown.returncode, "coordinator.run-unknown" in unknown.stderr) == (3, True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the test stops the commands by signal")
def test_a_federation_by_commands(tmp_path: Path, wait_until: Wait) -> None:
    coordinator, site = set_up(tmp_path)
    (tmp_path / "federation.toml").write_text(FEDERATION)
    environment = child_environment(tmp_path, 1)
    log = (tmp_path / "commands.log").open("wb")
    served = [subprocess.Popen(command("coordinator", "start", coordinator), env=environment, stderr=log)]
    try:
        wait_until(lambda: status(tmp_path, coordinator)["serving"], 60.0)
        words = ("coordinator", "admit", coordinator, site / "key.pub", "--name", "north", "--fingerprint")
        read_out = public_key_fingerprint(read_public_key(site / "key.pub"))
        admitted = fedseg(tmp_path, *words, read_out, "--json")
        assert admitted.returncode == 0, admitted.stderr
        fingerprint = json.loads(admitted.stdout.splitlines()[-1])["fingerprint"]
        assert fingerprint == read_out
        twice = fedseg(tmp_path, *words, read_out)
        assert (twice.returncode, "request.admitted" in twice.stderr) == (3, True)

        served.append(subprocess.Popen(command("site", "run", site), env=environment, stderr=log))
        run = fedseg(
            *(tmp_path, "coordinator", "run", coordinator, tmp_path / "federation.toml"),
            *("--name", "first", "--json"),
            limit_s=240.0,
        )
        assert run.returncode == 0, run.stderr
        done = json.loads(run.stdout.splitlines()[-1])
        assert done["outcome"] == "completed"
        assert (Path(done["folder"]) / "state").is_dir()
        # published at the end, and again on demand, under a key that serves nothing else
        again = fedseg(tmp_path, "coordinator", "publish", coordinator, "first", "--json")
        assert json.loads(again.stdout.splitlines()[-1])["releases"][0].endswith("-v2")
        found = list_releases(coordinator / "releases")
        assert [release.card.version for release in found] == [2, 1]
        assert done["releases"] == [found[1].id]
        # a site that was set up without an invitation trusts nobody's releases; with one it takes the newest
        assert "north took nothing (release.no-key)" in run.stderr
        invited = (
            "coordinator",
            "invite",
            coordinator,
            tmp_path / "federation.toml",
            "--out",
            site / "invitation.json",
        )
        assert fedseg(tmp_path, *invited).returncode == 0
        sent = fedseg(tmp_path, "coordinator", "deliver", coordinator, "first", "--json", limit_s=240.0)
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout.splitlines()[-1])["received"] == {"north": [found[0].id]}
        assert [release.id for release in list_releases(site / "releases")] == [found[0].id]
        assert (coordinator / "release.key").stat().st_mode & 0o077 == 0
        for wrong in ("../first", "never"):
            refused = fedseg(tmp_path, "coordinator", "publish", coordinator, wrong)
            assert refused.returncode in (2, 3), refused.stderr

        told = status(tmp_path, coordinator)
        assert told["sites"] == [{"name": "north", "connected": True}]
        runs = [(entry["stage"], entry["outcome"]) for entry in told["runs"]]
        assert runs == [("finished", "completed")] * 3  # one that trained, two that delivered
        _require_that_a_run_can_be_stopped(tmp_path, coordinator, environment, log, wait_until)
        started = [child for process in served for child in family(process.pid)]
        assert len(started) >= 5
        expelled = fedseg(tmp_path, "coordinator", "expel", coordinator, "north", "--json")
        assert json.loads(expelled.stdout.splitlines()[-1])["name"] == "north"
        assert status(tmp_path, coordinator)["sites"] == []
        assert fedseg(tmp_path, "coordinator", "expel", coordinator, "north").returncode == 3
        for process in reversed(served):
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) == 0
        wait_until(lambda: not alive(started), 20.0)
    finally:
        for process in served:
            process.kill()
            process.wait()
        log.close()
