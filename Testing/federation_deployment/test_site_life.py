"""One real site under a real coordinator: heartbeats while it trains, pause, resume, leaving; and no name gets out."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import SimpleITK as sitk
from gated_site import ask, entries, only_a_code, order, train
from tiny_deployment import CONTRACT, serving, tiny_federation, tiny_policy, write_cohort

from FedSegCore.common.errors import CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.loopback import LoopbackFederation, SiteSpec
from FedSegCore.federation.events import EVENTS_FILE, read_events
from FedSegCore.federation.messages import write_query
from FedSegCore.federation.process_log import log_to_stderr
from FedSegCore.federation.site import control
from FedSegCore.federation.site.case_intake import CaseOffer
from FedSegCore.federation.site.cohort_index import Consent
from FedSegCore.federation.site.cohort_store import CohortStore
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.state import site_state
from FedSegCore.federation.site.status import ProcessesState

Wait = Callable[..., None]
PLANTED = ("Doe", "Jane", "19700131")

FAST_HEARTBEATS = """
import sys

if "FedSegCore.federation.site.supernode" in sys.orig_argv:
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection

    fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = heartbeat.HEARTBEAT_DEFAULT_INTERVAL = 5
    heartbeat.HEARTBEAT_CALL_TIMEOUT = 1
if "FedSegCore.federation.coordinator.superlink" in sys.orig_argv:
    from flwr.superlink.servicer.fleet import fleet_handlers

    fleet_handlers.HEARTBEAT_MIN_INTERVAL = 1
"""
"""Nodes tell every few seconds, not every thirty, that they live; tasks keep Flower's times."""


@pytest.fixture
def living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackFederation]:
    """A federation of one site whose images lie under a patient's name, with fast heartbeats."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(FAST_HEARTBEATS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hooks"))
    cohort = write_cohort(tmp_path / "Doe^Jane_19700131", seed=1)
    listed = json.loads(cohort.read_text())
    listed["cases"].append({"case": "c9", "patient": "p9", "image": "Doe^Jane.nii.gz", "labels": "labels0.nii.gz"})
    cohort.write_text(json.dumps(listed))
    spec = SiteSpec("a", cohort)
    folder = tmp_path / "f"
    with LoopbackFederation(folder, "tiny", [spec], threads=1, device="cpu", policy=tiny_policy()) as federation:
        federation.start(Progress())
        yield federation


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(os.name == "nt", reason="the test stops processes by signal")
def test_a_site_pauses_resumes_and_leaves(living: LoopbackFederation, wait_until: Wait) -> None:
    site, folder = living.sites["a"], living.site_folders["a"]
    events = living.coordinator.runs / "life" / EVENTS_FILE
    config = tiny_federation(
        min_sites=1,
        rounds=3,
        join_deadline_s=300.0,
        round_deadline_s=200.0,
        training={"batch_size": 1, "steps_per_round": 100_000, "patch_size": (8, 16, 16)},
    )
    progress = Progress()

    def run() -> None:
        try:
            living.run(config, progress, "life")
        except (CancelledError, CannotDoHereError) as error:
            ended.append(error.code)

    def state() -> str:
        return site_state(folder).state

    def failed() -> list[str]:
        return [event["code"] for event in read_events(events) if event["event"] == "site-failed"]

    ended: list[str] = []
    assert state() == "connected"
    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: state() == "training", 120.0, living)
        trainer = psutil.Process(site.trainer_pid or 0)
        _require_heartbeats_while_the_trainer_stands_still(living, trainer, wait_until)

        # the case whose image is missing
        wait_until(lambda: site_state(folder).set_aside == 1, 60.0, living)
        asked = time.monotonic()
        control.pause(folder)
        wait_until(lambda: failed() == ["site.paused"], 90.0, living)
        # told by the site, long before the round's deadline
        assert time.monotonic() - asked < 100.0
        wait_until(lambda: site.state is ProcessesState.PAUSED, 60.0, living)
        assert site.processes() == []
        assert not trainer.is_running()
        wait_until(lambda: not living.control.online(), 30.0, living)
        assert state() == "paused"

        control.resume(folder)
        wait_until(lambda: state() == "training", 120.0, living)
        control.leave(folder)
        wait_until(lambda: site.state is ProcessesState.ENDED, 60.0, living)
        assert site.error is None
        wait_until(lambda: failed() == ["site.paused", "site.left"], 60.0, living)
        assert site_state(folder).words == "This site has left the federation."
    finally:
        progress.cancel()
        thread.join(40.0)
    codes = [entry.code for entry in entries(folder) if isinstance(entry, Refused)]
    assert codes == ["site.paused", "site.left"]
    _require_no_name(folder.path / "journal", folder.logs, living.coordinator.path)


def _require_heartbeats_while_the_trainer_stands_still(
    living: LoopbackFederation, trainer: psutil.Process, wait_until: Wait
) -> None:
    """Until when the coordinator takes the site for connected moves on by more than one heartbeat."""

    def online_until() -> float:
        with closing(sqlite3.connect(f"file:{living.coordinator.database}?mode=ro", uri=True)) as database:
            ((until,),) = database.execute("SELECT online_until FROM node").fetchall()
        return float(until)

    trainer.suspend()
    try:
        before = online_until()
        wait_until(lambda: online_until() > before + 4.0, 60.0, living)
    finally:
        trainer.resume()


def _require_no_name(*places: Path) -> None:
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [name for name in PLANTED if name.encode() in content], path.name


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_names_in_files_folders_tags_and_segments_reach_neither_journal_nor_log_nor_server(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, restored_log: None
) -> None:
    """A store filled from telling files, trained on, with one case gone bad: only the index knows the patient."""
    given = tmp_path / "Doe^Jane_19700131"
    write_cohort(given, seed=3, cases=3)
    (tmp_path / "ca.crt").write_text("certificate")
    settings = SiteSettings(name="a", coordinator="127.0.0.1:9443", device="cpu")
    site = SiteFolder.create(tmp_path / "site", settings, tmp_path / "ca.crt", tiny_policy())
    store = CohortStore(site, CONTRACT)
    log_to_stderr()
    for number in range(3):
        image = sitk.ReadImage(str(given / f"image{number}.nii.gz"))
        image.SetMetaData("0010|0010", "Doe^Jane")
        image.SetMetaData("PatientBirthDate", "19700131")
        sitk.WriteImage(image, str(given / f"Doe_{number}.nrrd"))
        labels = sitk.ReadImage(str(given / f"labels{number}.nii.gz"))
        fields = {"ID": "Doe", "Name": "Jane's blob", "LabelValue": "1", "Layer": "0", "Color": "1 0 0", "Tags": ""}
        for key, value in fields.items():
            labels.SetMetaData(f"Segment0_{key}", value)
        sitk.WriteImage(labels, str(given / f"Doe_{number}.seg.nrrd"))
        offered = CaseOffer(
            given / f"Doe_{number}.nrrd", given / f"Doe_{number}.seg.nrrd", f"Doe^Jane {number}", "CT",
            {"blob": ("Jane's blob",)}, "validation" if number == 2 else "train",
        )  # fmt: skip
        store.add(offered, Consent(by="Dr Jane Doe", given="2026-03-01"))
    assert b"Doe^Jane" in (site.store / "index.json").read_bytes()
    bad = store.index().cases[0].case
    (site.store / "cases" / bad / "labels.nrrd").write_bytes(b"NRRD0004\n# Doe^Jane\n")

    with serving(site, tmp_path_factory.mktemp("s")):
        sent = [ask(site, write_query(), "query"), train(site, order())]
        (site.store / "cohort.json").write_text('{"modality": "CT", "Doe": 1, "cases": [{"image": "Doe^Jane"}]}')
        sent.append(train(site, order()))
        assert only_a_code(sent[-1]) == "cohort.invalid"
        site.policy_file.write_text('{"privacy": "Doe^Jane"}')
        sent.append(train(site, order()))
        assert only_a_code(sent[-1]) == "policy.invalid"
    told = capfd.readouterr()
    assert f"case {bad} is not used" in told.err
    wire = b"".join(
        str(record).encode()
        + b"".join(array.data for array in getattr(record, "values", list)() if hasattr(array, "data"))
        for content in sent
        for record in content.values()
    )
    assert len(wire) > 1000
    for name in PLANTED:
        assert name not in told.out + told.err
        assert name.encode() not in wire
    _require_no_name(site.path / "journal", site.run, site.logs)
    kinds = [entry.kind for entry in entries(site)]
    assert kinds.count("case-added") == kinds.count("consent-given") == 3
