"""``fedseg coordinator`` and ``fedseg site`` as a user types them: set up, admit, run, stop."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tiny_deployment import write_cohort

from FedSegCore.federation.process_group import child_environment, free_ports
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
    idle = fedseg(tmp_path, "coordinator", "status", coordinator)
    assert (idle.returncode, "coordinator.not-running" in idle.stderr) == (4, True)
    nowhere = fedseg(tmp_path, "site", "run", tmp_path / "nowhere")
    assert (nowhere.returncode, "site.folder" in nowhere.stderr) == (3, True)
    assert str(tmp_path) not in nowhere.stderr
    assert site.is_dir()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the test stops the commands by signal")
def test_a_federation_by_commands(tmp_path: Path, wait_until: Wait) -> None:
    coordinator, site = set_up(tmp_path)
    (tmp_path / "federation.toml").write_text(FEDERATION)
    environment = child_environment(tmp_path, 1)
    log = (tmp_path / "commands.log").open("wb")
    served = [subprocess.Popen(command("coordinator", "start", coordinator), env=environment, stderr=log)]
    try:
        wait_until(lambda: fedseg(tmp_path, "coordinator", "status", coordinator).returncode == 0, 60.0)
        admitted = fedseg(tmp_path, "coordinator", "register", coordinator, "north", site / "key.pub", "--json")
        assert admitted.returncode == 0, admitted.stderr
        fingerprint = json.loads(admitted.stdout.splitlines()[-1])["fingerprint"]
        assert fingerprint.startswith("SHA256:")
        twice = fedseg(tmp_path, "coordinator", "register", coordinator, "north", site / "key.pub")
        assert (twice.returncode, "coordinator.key-refused" in twice.stderr) == (3, True)

        served.append(subprocess.Popen(command("site", "run", site), env=environment, stderr=log))
        run = fedseg(
            *(tmp_path, "coordinator", "run", coordinator, tmp_path / "federation.toml"),
            *("--name", "first", "--json"),
            limit_s=120.0,
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
        assert (coordinator / "release.key").stat().st_mode & 0o077 == 0
        for wrong in ("../first", "never"):
            refused = fedseg(tmp_path, "coordinator", "publish", coordinator, wrong)
            assert refused.returncode in (2, 3), refused.stderr

        status = fedseg(tmp_path, "coordinator", "status", coordinator, "--json")
        told = json.loads(status.stdout.splitlines()[-1])
        assert told["sites"] == [{"name": "north", "connected": True}]
        assert [(entry["stage"], entry["outcome"]) for entry in told["runs"]] == [("finished", "completed")]
        family = [child for process in served for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(family) >= 5
        for process in reversed(served):
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) == 0
        assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    finally:
        for process in served:
            process.kill()
            process.wait()
        log.close()
