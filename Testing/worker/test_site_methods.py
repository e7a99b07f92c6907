"""What the worker tells the Federation tab: the core's own answers, from a real site of a real invitation."""

import json
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.join_request import read_request
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import CaseAdded, Introduced, UsualTold
from FedSegCore.federation.site.round_records import keep_round, read_rounds
from FedSegCore.federation.site.status import SiteStatus, read_status, this_process, write_status
from FedSegCore.learning.results import CaseScore, RoundRequest, RoundResult
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.worker.methods import Methods

CONTRACT = LabelContract(
    labels=(Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(200, 80, 60)),)
)


def call(methods: Methods, name: str, /, **params):
    method = methods.find(name)
    return method.slow(method.params.model_validate(params), Progress())


def code_of(*args, **params) -> str:
    with pytest.raises(FedSegError) as refused:
        call(*args, **params)
    assert refused.value.remedy
    return refused.value.code


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
def invitation(tmp_path: Path) -> Path:
    folder = CoordinatorFolder.create(tmp_path / "c", CoordinatorSettings(federation="study", hosts=("localhost",)))
    invite(folder, tmp_path / "invitation.json", FederationConfig(name="study", contract=CONTRACT, rounds=2), 10)
    return tmp_path / "invitation.json"


@pytest.fixture
def site(tmp_path: Path, methods: Methods, invitation: Path) -> str:
    call(methods, "site.join", site=str(tmp_path / "site"), invitation=str(invitation), name="north")
    return str(tmp_path / "site")


@pytest.fixture
def scan(tmp_path: Path) -> dict[str, str]:
    """A CT of 100 x 80 x 40 mm in air with a bright box, and its label map."""
    labels = np.zeros((20, 40, 50), np.uint8)
    labels[5:15, 10:30, 10:40] = 1
    voxels = np.where(labels > 0, 60, -900) + np.random.default_rng(1).normal(0, 15, labels.shape)
    files = {}
    for name, array in (("image", voxels.astype(np.int16)), ("labels", labels)):
        written = sitk.GetImageFromArray(array)
        written.SetSpacing((2.0, 2.0, 2.0))
        files[name] = str(tmp_path / f"Doe^Jane-{name}.nrrd")
        sitk.WriteImage(written, files[name])
    return files


def test_joining_step_by_step(methods, tmp_path, invitation):
    site = str(tmp_path / "site")
    told = call(methods, "site.state", site=site)
    assert (told["state"], told["member"]) == ("not-a-member", None)
    read = call(methods, "site.invitation", invitation=str(invitation))
    assert (read["federation"], read["addresses"]) == ("study", ["localhost:9443"])
    assert read["words"][0] == "Structures: liver."
    wrong = "0000-0000-0000-0000-0000"
    params = {"site": site, "invitation": str(invitation), "name": "north"}
    assert code_of(methods, "site.join", **params, coordinator_fingerprint=wrong) == "invitation.other-coordinator"
    assert not Path(site).exists()
    joined = call(methods, "site.join", **params, coordinator_fingerprint=read["fingerprint"])
    assert joined["compared"]
    member = call(methods, "site.state", site=site)["member"]
    assert (member["name"], member["federation"]) == ("north", "study")
    assert member["coordinator_fingerprint"] == read["fingerprint"]
    assert member["fingerprint"] == joined["fingerprint"]
    request = read_request(Path(member["request"]))
    assert request.fingerprint == joined["fingerprint"]
    assert request.site == "north"


def test_a_case_is_checked_consented_revoked_and_removed(methods, site, scan):
    offer = {"site": site, **scan, "patient": "4711", "modality": "CT", "title": "my scan"}
    found = call(methods, "site.cohort.check", **offer, naming={"liver": ["1"]})
    assert (found["refused"], found["role"], found["modality"]) == ([], "train", "CT")
    assert call(methods, "site.cohort.list", site=site)["cases"] == []
    added = call(methods, "site.cohort.add", **offer)
    assert (added["title"], added["consent"], added["consented"]) == ("my scan", None, False)
    assert Path(added["thumbnail"]).read_bytes().startswith(b"\x89PNG")
    again = call(methods, "site.cohort.check", **offer)
    assert again["refused"] == ["case.duplicate"]
    assert not next(row for row in again["findings"] if row["code"] == "case.duplicate")["acceptable"]
    case = added["case"]
    agreed = call(methods, "site.cohort.consent", site=site, case=case, by="Dr. House", given="2026-01-31")
    assert agreed["consent"] == {"by": "Dr. House", "given": "2026-01-31", "revoked": None}
    told = call(methods, "site.cohort.list", site=site)
    assert (told["structures"], told["trained"], told["scored"], told["modality"]) == (["liver"], 1, 0, "CT")
    assert not call(methods, "site.cohort.revoke", site=site, case=case)["consented"]
    assert call(methods, "site.cohort.list", site=site)["trained"] == 0
    call(methods, "site.cohort.remove", site=site, case=case)
    assert call(methods, "site.cohort.list", site=site)["cases"] == []
    journal = call(methods, "site.journal", site=site)
    kinds = [row["kind"] for row in journal["rows"]]
    assert kinds[:4] == ["case-removed", "consent-revoked", "consent-given", "case-added"]
    assert journal["verified"]["whole"]
    assert "House" not in json.dumps(journal)
    assert "4711" not in json.dumps(journal)


def test_a_folder_of_images_becomes_cases(methods, site, scan, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, file in (("p7.nrrd", scan["image"]), ("p7_seg.nrrd", scan["labels"]), ("p8.nrrd", scan["image"])):
        (folder / name).write_bytes(Path(file).read_bytes())
    (folder / "p8_seg.nrrd").write_bytes(b"no labels")
    params = {"site": site, "folder": str(folder), "modality": "CT", "naming": {"liver": ["1"]}}
    told = call(methods, "site.cohort.folder", **params, consent_by="Dr. House")
    assert (told["added"], [one["name"] for one in told["left_out"]]) == (1, ["p8"])
    listed = call(methods, "site.cohort.list", site=site)
    (case,) = listed["cases"]
    assert (case["patient"], case["consented"], listed["naming"]) == ("p7", True, {"liver": ("1",)})
    (folder / "p8_seg.nrrd").unlink()
    (folder / "p7.nrrd").rename(folder / "p9.nrrd")
    (folder / "p7_seg.nrrd").rename(folder / "p9_seg.nrrd")
    call(methods, "site.cohort.remove", site=site, case=case["case"])
    again = {**params, "naming": {"liver": None}}
    assert call(methods, "site.cohort.folder", **again)["added"] == 1
    assert call(methods, "site.cohort.list", site=site)["naming"] == {}
    assert code_of(methods, "site.cohort.folder", site=site, folder=str(tmp_path / "none")) == "cohort.folder"


def test_control_and_a_changed_journal(methods, site):
    told = call(methods, "site.control", site=site, what="set", settings={"hours": "19:00-07:00", "cores_free": 2})
    assert (told["member"]["hours"], told["member"]["cores_free"]) == ("19:00-07:00", 2)
    told = call(methods, "site.control", site=site, what="set", settings={"hours": None})
    assert (told["member"]["hours"], told["member"]["cores_free"]) == (None, 2)
    assert code_of(methods, "site.control", site=site, what="set", settings={"hours": "night"}) == "options.invalid"
    paused = call(methods, "site.control", site=site, what="pause")
    assert (paused["state"], paused["member"]["paused"]) == ("request-sent", True)  # nothing that is paused is running
    assert call(methods, "site.control", site=site, what="resume")["state"] == "request-sent"
    left = call(methods, "site.control", site=site, what="leave")
    assert left["state"] == "left"
    assert "join with a new invitation" in left["remedy"]
    assert code_of(methods, "site.run.start", site=site) == "site.has-left"
    file = next(Path(site, "journal").glob("journal-*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"paused", b"resumed"))
    verified = call(methods, "site.journal", site=site)
    assert not verified["verified"]["whole"]
    assert verified["rows"] == []
    forgotten = call(methods, "site.control", site=site, what="forget")
    assert (forgotten["state"], forgotten["member"]) == ("not-a-member", None)
    assert forgotten["journal_changed"] > 0  # it can still be read


def test_what_left_is_found_behind_any_number_of_other_entries(methods, site):
    journal = SiteFolder(Path(site)).journal
    before = call(methods, "site.state", site=site)["journal_changed"]
    journal.append(Introduced(training_cases=2, validation_cases=0, bytes=100, sha256="a" * 64))
    journal.append(UsualTold(round_number=1, volumes=2, look=True, fewest_patients=5))
    for _number in range(3):
        journal.append(CaseAdded(case="0123456789abcdef"))
    told = call(methods, "site.journal", site=site, only_left=True, last=2)
    assert [row["kind"] for row in told["rows"]] == ["usual-told", "introduced"]
    assert told["total"] == 2
    told = call(methods, "site.journal", site=site, last=2)
    assert ([row["kind"] for row in told["rows"]], told["total"]) == (["case-added"] * 2, 7)
    assert call(methods, "site.state", site=site)["journal_changed"] > before > 0


def test_a_site_that_was_shut_out_comes_back_with_a_new_key(methods, site, invitation):
    """What its former key came to is told no more: it asks to be admitted, as at first."""
    folder = SiteFolder(Path(site))
    pid, started = this_process()
    status = SiteStatus(pid=pid, started=started, processes="ended", was_connected=True, code="site.expelled", what="x")
    write_status(folder, status)
    before = call(methods, "site.state", site=site)
    assert (before["state"], before["code"]) == ("problem", "site.expelled")
    params = {"site": site, "invitation": str(invitation), "name": "north"}
    assert call(methods, "site.join", **params, new_key=True)["again"]
    after = call(methods, "site.state", site=site)
    assert after["state"] == "request-sent"
    assert after["member"]["fingerprint"] != before["member"]["fingerprint"]


def test_rounds_are_kept_for_the_sites_own_people(methods, site):
    folder = SiteFolder(Path(site))
    request = RoundRequest(round_number=3, rounds=9, seed=1)
    scores = (CaseScore("a", "liver", 0.5, 0.3), CaseScore("b", "liver", 0.9, 0.8), CaseScore("a", "spleen", 1.0, 1.0))
    seconds = {"training": 4.0, "scoring": 1.5}
    keep_round(folder, request, RoundResult({}, 2, 5, 0.25, scores, seconds=seconds, skipped_steps=4))
    keep_round(folder, request, RoundResult({}, 2, 5, float("nan")))
    with folder.round_records.open("ab") as file:
        file.write(b'{"half a li')
    (kept,) = read_rounds(folder)
    assert (kept.round_number, kept.rounds, kept.loss, kept.cases, kept.seconds) == (3, 9, 0.25, 2, 5.5)
    assert kept.skipped_steps == 4
    assert kept.dice == {"liver": pytest.approx(0.7), "spleen": 1.0}
    member = call(methods, "site.state", site=site)["member"]
    assert member["rounds"][0]["dice"]["spleen"] == 1.0
    labels = folder.invitation().contract.labels
    assert member["colours"] == {label.name: label.colour for label in labels} != {}
    if os.name != "nt":
        assert folder.round_records.stat().st_mode & 0o077 == 0


def test_the_sites_processes_outlive_the_worker_and_are_found_again(methods, site):
    """Another worker, as after a restart of Slicer, finds and ends what the first one started."""
    told = call(methods, "site.run.start", site=site)
    try:
        assert told["running"]
        assert code_of(methods, "site.run.start", site=site) == "site.already-running"
        status = read_status(SiteFolder(Path(site)))
        running = psutil.Process(status.pid)
        assert running.cmdline()[-3:-1] == ["site", "run"]
        if os.name != "nt":
            assert os.getsid(status.pid) != os.getsid(0)  # closing a terminal or Slicer does not reach it
        assert call(Methods(), "site.state", site=site)["running"]
    finally:
        told = call(Methods(), "site.run.stop", site=site)
    assert not told["running"]
    assert not call(methods, "site.run.stop", site=site)["running"]
