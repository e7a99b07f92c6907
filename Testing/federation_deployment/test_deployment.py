"""Real SuperLink, SuperNodes and trainers on loopback; the tests share one running federation and go in order."""

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from tiny_deployment import CONTRACT, family, tiny_federation

from FedSegCore.common.errors import CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.loopback import LoopbackFederation
from FedSegCore.federation.events import EVENTS_FILE, read_events
from FedSegCore.federation.federated_run import CohortTrainer, run_in_process
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.process_group import Child, child_environment, free_ports, stop_trees
from FedSegCore.federation.site.cohort_file import load_cohort
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import Left, Refused
from FedSegCore.federation.site.node import SiteProcesses, SiteState
from FedSegCore.federation.state_store import SiteRound
from FedSegCore.volumes.preprocessing import Preprocessing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Wait = Callable[..., None]


def test_real_processes_give_what_one_process_gives(federation: LoopbackFederation, tmp_path: Path) -> None:
    config = tiny_federation()
    told: list[tuple[float, str]] = []

    run_folder = federation.run(config, Progress(lambda fraction, stage: told.append((fraction, stage))))

    real = FederationOutcome.load(run_folder).groups["CT"]
    assert real.done
    assert sorted((row.round_number, row.site, row.code) for row in real.history) == [
        (number, site, "") for number in (1, 2) for site in "ab"
    ]
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("a answered" in stage for _, stage in told)
    trainers = {
        name: CohortTrainer(name, "CT", load_cohort(folder.cohort, config.preprocessing_of("CT"), CONTRACT))
        for name, folder in federation.site_folders.items()
    }
    same = run_in_process(config, trainers, tmp_path / "in-process", Progress()).groups["CT"]
    assert real.model.keys() == same.model.keys()
    for name, array in same.model.items():
        np.testing.assert_allclose(real.model[name], array, rtol=1e-4, atol=1e-5)
    for name, folder in federation.site_folders.items():
        _require_that_the_journal_tells_what_left(name, folder, real.history)


def _require_that_the_journal_tells_what_left(name: str, folder: SiteFolder, history: Sequence[SiteRound]) -> None:
    """Bytes and hashes in the site's journal are those of what the server received, no more and no less."""
    assert folder.journal.verify().whole
    entries = [line.entry for line in folder.journal.lines()]
    assert [entry.kind for entry in entries if entry.kind != "introduced"] == [
        "enrolled",
        *("order-received", "cohort-read", "left"),
        *("order-received", "left"),
    ]
    assert "introduced" in {entry.kind for entry in entries}
    received = [(row.round_number, row.payload_bytes, row.payload_sha256) for row in history if row.site == name]
    left = [(entry.round_number, entry.bytes, entry.sha256) for entry in entries if isinstance(entry, Left)]
    assert left == sorted(received)
    assert all(entry.tensors > 0 and entry.scores == 1 for entry in entries if isinstance(entry, Left))
    scores = [score for row in history if row.site == name for score in row.scores]
    assert len(scores) == 2
    assert len({score.case for score in scores}) == 1
    assert all(score.case.startswith("case-") and score.case != "c1" for score in scores)
    assert all(score.dice == round(score.dice, 3) for score in scores)


def test_sites_reach_the_fleet_api_and_nothing_else(federation: LoopbackFederation) -> None:
    settings = federation.coordinator.settings()
    trusted = ssl.create_default_context(cafile=str(federation.coordinator.authority_certificate))
    with httpx.Client(verify=trusted, trust_env=False) as client:
        outer = f"https://127.0.0.1:{settings.fleet_port}"
        for path in (
            "/v1/control/list-runs",
            "/v1/control/start-run",
            "/v1/control/register-node",
            "/v1/runtime/acquire-task",
            "/v1/fleet",
            "/v1/fleet/../control/list-runs",
            "/v1/fleet/%2e%2e/control/list-runs",
            "/health",
            "/docs",
            "/openapi.json",
        ):
            for method in ("GET", "POST"):
                assert client.request(method, outer + path).status_code == 404, path
        protobuf = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
        unsigned = client.post(outer + "/v1/fleet/pull-messages", headers=protobuf)
        assert unsigned.status_code not in (200, 404)
        inner = f"https://127.0.0.1:{settings.control_port}"
        for headers in (protobuf, {**protobuf, "x-fedseg-control": "guess"}):
            assert client.post(inner + "/v1/control/list-runs", headers=headers).status_code == 401
        assert client.post(inner + "/v1/runtime/acquire-task", headers=protobuf).status_code == 401
        assert client.get(inner + "/docs").status_code == 401


def test_a_stranger_without_an_admitted_key_is_refused(
    federation: LoopbackFederation, tmp_path: Path, wait_until: Wait
) -> None:
    coordinator = f"127.0.0.1:{federation.coordinator.settings().fleet_port}"
    settings = SiteSettings(name="stranger", coordinator=coordinator, cohort=Path("none.json"), threads=1)
    folder = SiteFolder.create(tmp_path / "stranger", settings, federation.coordinator.authority_certificate)
    stranger = SiteProcesses(folder)
    news: list[str] = []
    try:
        wait_until(lambda: bool(news.extend(stranger.tick()) or stranger.state is SiteState.RETRYING), 30.0)
    finally:
        stop_trees(stranger.processes())
    assert any("not admitted" in words for words in news)
    assert len(federation.control.online()) == 2


def test_a_hostile_bundle_is_neither_unpacked_nor_run(federation: LoopbackFederation, wait_until: Wait) -> None:
    """A coordinator that sends its own code is answered with an error by the site, and refused by our own executor."""
    from hostile_coordinator import hostile_bundle

    run_id = federation.control.start("hostile", hostile_bundle())
    wait_until(lambda: federation.control.status(run_id).finished, 30.0, federation)
    assert federation.control.status(run_id).outcome == "failed"

    superexec = psutil.Process(federation.coordinator_processes.pid("superexec"))
    superexec.suspend()
    folder = federation.coordinator
    report = folder.runs / "hostile-report.json"
    environment = child_environment(folder.flower_home, 1)
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    stock = Child(
        "stock",
        "hostile_coordinator",
        [
            *("--folder", str(folder.path), "--parent-pid", str(os.getpid())),
            *("--runtime-api-address", f"127.0.0.1:{folder.settings().control_port}"),
            *("--secret-file", str(folder.superexec_secret)),
            *("--root-certificates", str(folder.authority_certificate)),
        ],
        {**environment, "HOSTILE_REPORT": str(report)},
        folder.logs / "hostile.log",
    ).start()
    bundle = hostile_bundle()
    try:
        run_id = federation.control.start("hostile", bundle)
        wait_until(lambda: federation.control.status(run_id).finished, 40.0, federation)
    finally:
        stop_trees([stock])
        superexec.resume()
    assert report.read_text() == "node error 1"
    refused = [line.entry for folder in federation.site_folders.values() for line in folder.journal.lines()]
    digest = hashlib.sha256(bundle).hexdigest()
    assert [entry.sha256 for entry in refused if isinstance(entry, Refused)] == [digest]
    for site in federation.site_folders.values():
        assert not (site.flower_home / "apps").exists()
        assert not (site.run / "hostile-code-ran").exists()


def test_cancelling_stops_the_run(federation: LoopbackFederation) -> None:
    progress = Progress(lambda _fraction, stage: progress.cancel() if "asked 2 sites" in stage else None)
    with pytest.raises(CancelledError):
        federation.run(tiny_federation(rounds=50), progress, "cancelled")
    assert [status.outcome for status in federation.control.runs().values()].count("stopped") == 1


def client_app_of(site: SiteFolder, process: psutil.Process) -> bool:
    words = process.cmdline()
    return "FedSegCore.federation.site.run_clientapp" in words and str(site.path) in words


def test_a_site_that_fails_or_is_killed_does_not_stop_the_run(federation: LoopbackFederation, wait_until: Wait) -> None:
    """b: an error in round 1, its client app ended in 2, its trainer killed in 3, its SuperNode in 4; SuperLink too."""
    config = tiny_federation(
        rounds=4,
        round_deadline_s=40.0,
        training={"batch_size": 1, "steps_per_round": 400, "patch_size": (8, 16, 16)},
        # another window than before, so that the cohort is read again
        preprocessing={"CT": Preprocessing(modality="CT", window=(-50.0, 150.0))},
    )
    b = federation.sites["b"]
    images = federation.site_folders["b"].cohort.parent
    hidden = images.rename(images.with_name("hidden"))
    images.mkdir()
    (images / "cohort.json").write_bytes((hidden / "cohort.json").read_bytes())
    events = federation.coordinator.runs / "trouble" / EVENTS_FILE
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            federation.run(config, Progress(), "trouble")
        except CannotDoHereError as error:
            ended.append(error)
        else:
            ended.append(None)

    def closed(number: int) -> bool:
        return any(e["event"] == "round-closed" and e["round"] == number for e in read_events(events))

    def training(number: int) -> bool:
        return b.progress().get("stage", "").startswith(f"round {number} of 4: ") and closed(number - 1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: federation.sites["a"].progress().get("state") == "training", 120.0)
        os.kill(federation.coordinator_processes.pid("superlink"), signal.SIGKILL)
        wait_until(lambda: closed(1), 120.0)
        (images / "cohort.json").unlink()
        images.rmdir()
        hidden.rename(images)
        wait_until(lambda: training(2), 90.0)
        for process in family():
            if client_app_of(federation.site_folders["b"], process):
                process.send_signal(signal.SIGTERM)
        wait_until(lambda: training(3), 90.0)
        os.kill(b.trainer_pid or 0, signal.SIGKILL)
        wait_until(lambda: training(4), 120.0)
        os.kill(b.supernode_pid or 0, signal.SIGKILL)
        thread.join(120.0)
    finally:
        thread.join(1.0)
    assert ended == [None]
    group = FederationOutcome.load(events.parent).groups["CT"]
    codes = {(row.round_number, row.site): row.code for row in group.history}
    assert group.done
    assert [codes[number, "a"] for number in (1, 2, 3, 4)] == ["", "", "", ""]
    assert codes[1, "b"].startswith("cohort.")
    assert codes[2, "b"] == "cancelled"
    assert codes[3, "b"] == "trainer.gone"
    assert codes[4, "b"] in ("site.late", "node.unavailable", "node.restarted")


def test_a_site_that_was_shut_out_says_so_and_ends(federation: LoopbackFederation, wait_until: Wait) -> None:
    site = federation.sites["a"]
    (admitted,) = [known for known in federation.coordinator.sites() if known.name == "a"]
    federation.control.remove(admitted)
    wait_until(lambda: site.state is SiteState.ENDED, 30.0, federation)
    assert site.error is not None
    assert site.error.code == "site.expelled"


def test_stopping_leaves_no_process_and_no_open_port(federation: LoopbackFederation) -> None:
    before = family()
    settings = federation.coordinator.settings()
    assert len(before) >= 4
    federation.stop()
    assert [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    for port in (settings.fleet_port, settings.control_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_children_end_when_their_parent_is_killed(tmp_path: Path, wait_until: Wait) -> None:
    fleet, control = free_ports(2)
    settings = CoordinatorSettings(
        federation="orphans", hosts=("localhost",), fleet_host="127.0.0.1", fleet_port=fleet, control_port=control
    )
    CoordinatorFolder.create(tmp_path / "coordinator", settings)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from FedSegCore.federation.coordinator.folder import CoordinatorFolder\n"
        "from FedSegCore.federation.coordinator.service import CoordinatorProcesses\n"
        "CoordinatorProcesses(CoordinatorFolder.open(Path(sys.argv[1]))).start(); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "coordinator")]
    with subprocess.Popen(command, env=child_environment(tmp_path)) as parent:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", fleet)) == 0, 60.0)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) == 2
        parent.kill()

    def left() -> list[psutil.Process]:
        return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    try:
        wait_until(lambda: not left(), 20.0)
    finally:
        for process in left():
            process.kill()
