"""Real SuperLink, SuperNodes and trainers on loopback; the tests share one running federation and go in order."""

import hashlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from hostile_member import HostileMember
from tiny_deployment import CONTRACT, alive, family, tiny_federation, tiny_policy, write_cohort

from FedSegCore.common.errors import CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.follow import follow_run
from FedSegCore.federation.coordinator.loopback import LoopbackFederation
from FedSegCore.federation.coordinator.releasing import delivered, plan_delivery, publish_run
from FedSegCore.federation.events import EVENTS_FILE, read_events
from FedSegCore.federation.federated_run import InProcessTrainer, run_in_process
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.process_group import Child, child_environment, stop_trees
from FedSegCore.federation.site.admission import Admission, forget_node_id, known_node_id
from FedSegCore.federation.site.approval import refused_bundles
from FedSegCore.federation.site.ask_admission import ask
from FedSegCore.federation.site.cohort_file import load_cohort
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import Left, Refused, ReleaseReceived
from FedSegCore.federation.site.keys import make_site_key, read_public_key, short_fingerprint
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.policy import write_policy
from FedSegCore.federation.site.preflight import first_failure, preflight
from FedSegCore.federation.site.preflight_machine import Needs
from FedSegCore.federation.site.status import ProcessesState
from FedSegCore.federation.state_store import SiteRound
from FedSegCore.models.release import open_release
from FedSegCore.volumes.preprocessing import Preprocessing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Wait = Callable[..., None]


def test_real_processes_give_what_one_process_gives(federation: LoopbackFederation, tmp_path: Path) -> None:
    # FLAMES: each site goes on from a model of its own, which the server app keeps for sites that are admitted
    config = tiny_federation(aggregation={"rule": "flames"})
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
        name: InProcessTrainer(name, "CT", load_cohort(folder.cohort, config.preprocessing_of("CT"), CONTRACT))
        for name, folder in federation.site_folders.items()
    }
    same = run_in_process(config, trainers, tmp_path / "in-process", Progress()).groups["CT"]
    assert real.model.keys() == same.model.keys()
    assert set(real.site_models) == {"a", "b"}
    for site in ("a", "b", "newcomer"):
        for name, array in same.model_of(site).items():
            np.testing.assert_allclose(real.model_of(site)[name], array, rtol=1e-4, atol=1e-5)
    for name, folder in federation.site_folders.items():
        _require_that_the_journal_tells_what_left(name, folder, real.history)


def _require_that_the_journal_tells_what_left(name: str, folder: SiteFolder, history: Sequence[SiteRound]) -> None:
    """Bytes and hashes in the site's journal are those of what the server received, no more and no less."""
    assert folder.journal.verify().whole
    entries = [line.entry for line in folder.journal.lines()]
    assert [entry.kind for entry in entries if entry.kind != "introduced"] == [
        "enrolled",
        *("order-received", "cohort-read", "usual-told", "left"),
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


def test_a_site_listens_for_nobody_outside_its_computer(federation: LoopbackFederation) -> None:
    parents = [psutil.Process(process.pid) for site in federation.sites.values() for process in site.processes()]
    every = [process for parent in parents for process in (parent, *parent.children(recursive=True))]
    found = {c.laddr.ip for process in every for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert found == {"127.0.0.1"}


def test_a_stranger_without_an_admitted_key_is_refused(
    federation: LoopbackFederation, tmp_path: Path, wait_until: Wait
) -> None:
    coordinator = f"127.0.0.1:{federation.coordinator.settings().fleet_port}"
    settings = SiteSettings(name="stranger", coordinator=coordinator, cohort=Path("none.json"), threads=1)
    folder = SiteFolder.create(tmp_path / "stranger", settings, federation.coordinator.authority_certificate)
    stranger = SiteProcesses(folder)
    news: list[str] = []
    try:
        wait_until(lambda: bool(news.extend(stranger.tick()) or stranger.state is ProcessesState.RETRYING), 30.0)
    finally:
        stop_trees(stranger.processes())
    assert any("not admitted" in words for words in news)
    assert len(federation.control.online()) == 2


def checked(folder: SiteFolder) -> tuple[str, str]:
    """Return the code of the first layer that fails, and what is told of the admission."""
    findings = preflight(folder, Progress(), Needs(1, 1, 5.0))
    failed = first_failure(findings)
    told = next(found.words for found in findings if found.layer == "admission")
    return ("" if failed is None else failed.code), told


def test_a_site_checks_whether_it_is_admitted_and_disturbs_nobody(
    federation: LoopbackFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{federation.coordinator.settings().fleet_port}"
    settings = SiteSettings(name="new", coordinator=address, cohort=write_cohort(tmp_path / "images", 9), device="cpu")
    authority = federation.coordinator.authority_certificate
    new = SiteFolder.create(tmp_path / "new", settings, authority, tiny_policy())
    code, told = checked(new)
    assert code == "check.not-admitted"
    assert short_fingerprint(read_public_key(new.public_key)) in told
    admitted = federation.control.admit("new", new.public_key)
    assert checked(new)[0] == ""
    # the activation was taken back: nobody waits for a site that is not there
    assert len(federation.control.online()) == 2
    assert known_node_id(new) == admitted.node_id
    # a site that runs is asked in another way, which does not take its place
    running = federation.site_folders["a"]
    assert checked(running)[0] == ""
    assert federation.sites["a"].state is ProcessesState.CONNECTED
    assert len(federation.control.online()) == 2
    with monkeypatch.context() as clock:
        ahead = datetime.now(UTC) + timedelta(seconds=60)
        clock.setattr("flwr.supernode.node_auth_http_interceptor.now", lambda: ahead)
        assert ask(new).admission is Admission.SIGNATURE
    federation.control.remove(admitted)
    assert checked(new)[0] == "check.expelled"
    make_site_key(new.private_key, new.public_key)
    forget_node_id(new)
    assert checked(new)[0] == "check.not-admitted"


def test_a_member_that_means_harm_costs_itself_its_rounds_and_nobody_else(
    federation: LoopbackFederation, tmp_path: Path
) -> None:
    admitted = federation.control.admit("mallory", HostileMember.make_key(tmp_path / "mallory"))
    rounds = {1: "rubbish", 2: "forged", 3: "giant"}
    try:
        with HostileMember(federation.coordinator, tmp_path / "mallory", rounds):
            run_folder = federation.run(tiny_federation(rounds=3, min_sites=3), Progress(), "mallory")
    finally:
        federation.control.remove(admitted)
    codes = {(row.round_number, row.site): row.code for row in FederationOutcome.load(run_folder).groups["CT"].history}
    assert [codes.pop((number, "mallory")) for number in rounds] == ["reply.unreadable", "", "reply.too-large"]
    assert codes == {(number, site): "" for number in rounds for site in "ab"}


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
    policies = {site: site.policy_file.read_bytes() for site in federation.site_folders.values()}
    for site in policies:
        write_policy(site.policy_file, tiny_policy(message_bytes=1024**2))
    try:
        run_id = federation.control.start("hostile", bundle)
        wait_until(lambda: federation.control.status(run_id).finished, 90.0, federation)
    finally:
        stop_trees([stock])
        superexec.resume()
        for site, policy in policies.items():
            site.policy_file.write_bytes(policy)
    # the giant message was dropped half-way, and the site went on answering
    assert report.read_text() == "node error 1; nothing; node error 1"
    refused = [e for site in policies for e in (line.entry for line in site.journal.lines()) if isinstance(e, Refused)]
    digest = hashlib.sha256(bundle).hexdigest()
    assert [entry.sha256 or entry.code for entry in refused] == [digest, "policy.message-size", digest]
    (listed,) = [listed for site in policies for listed in refused_bundles(site)]
    assert {"FedSegCore/federation/client_app.py", "sitecustomize.py", "../../escaped.py"} <= {
        f.name for f in listed.files
    }
    _require_that_nothing_was_unpacked(federation.site_folders["a"].path.parent)


def _require_that_nothing_was_unpacked(root: Path) -> None:
    left = {path.name for path in root.rglob("*")}
    unpacked = {"apps", "hostile-code-ran", "sitecustomize.py", "usercustomize.py", "hostile.pth", "escaped.py"}
    assert not left & unpacked
    assert not {name for name in left if name.endswith((".py", ".pyc", ".fab", ".zip"))}


def test_what_was_trained_is_delivered_to_the_site_that_was_invited(
    federation: LoopbackFederation, tmp_path: Path
) -> None:
    """From a run to the release in the folder of a site that holds the coordinator's key; the other declines."""
    coordinator, sites = federation.coordinator, federation.site_folders
    invite(coordinator, tmp_path / "invitation.json", tiny_federation(), 10)
    # loopback sites are set up without one
    sites["a"].invitation_file.write_bytes((tmp_path / "invitation.json").read_bytes())
    run = federation.run(tiny_federation(rounds=1), Progress(), "to-deliver")
    published = open_release(publish_run(coordinator, "to-deliver")["CT"])
    plan_delivery(coordinator, "to-deliver")
    run_id = federation.control.start("to-deliver", deliver=True)
    follow_run(federation.control, run, run_id, Progress(), federation.tick)
    assert delivered(coordinator, "to-deliver", 0.0) == ({"a": [published.id]}, {"b": "release.no-key"})
    taken = open_release(sites["a"].releases / published.id)
    assert replace(taken, path=published.path) == published
    assert taken.card.usual["CT"].look.patients == 2
    received = [line.entry for line in sites["a"].journal.lines() if isinstance(line.entry, ReleaseReceived)]
    assert [entry.weights_sha256 for entry in received] == [published.card.weights_sha256]
    assert (run / EVENTS_FILE).is_file()


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


def test_a_site_that_was_shut_out_says_so_and_ends(
    federation: LoopbackFederation, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    # it tries once more, since a wrong clock looks the same; not for a minute here
    monkeypatch.setattr("FedSegCore.federation.site.node.SHUT_OUT_S", 0.0)
    site = federation.sites["a"]
    (admitted,) = [known for known in federation.coordinator.sites() if known.name == "a"]
    federation.control.remove(admitted)
    wait_until(lambda: site.state is ProcessesState.ENDED, 30.0, federation)
    assert site.error is not None
    assert site.error.code == "site.expelled"


def test_stopping_leaves_no_process_and_no_open_port(federation: LoopbackFederation, wait_until: Wait) -> None:
    before = family()
    settings = federation.coordinator.settings()
    assert len(before) >= 4
    federation.stop()
    wait_until(lambda: not alive(before), 20.0)
    for port in (settings.fleet_port, settings.control_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
