"""Coordinator and site, part by part: keys, certificates, files, sockets, processes."""

import base64
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tiny_deployment import CONTRACT, alive, tiny_federation, write_cohort

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError, UsageError
from FedSegCore.common.progress import Progress
from FedSegCore.federation import flower_version
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.follow import RunFollower, write_run
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.log_tail import LogTail, cut_log
from FedSegCore.federation.process_group import Restarts, stop_trees
from FedSegCore.federation.site.cohort_file import load_cohort, read_cohort_file
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.keys import public_key_fingerprint, read_public_key
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.status import ProcessesState
from FedSegCore.federation.site.trainer_client import TrainerClient
from FedSegCore.federation.site.trainer_wire import (
    Frame,
    error_frame,
    raise_error,
    read_result,
    receive,
    result_frame,
    send,
)
from FedSegCore.federation.tasks import training_task
from FedSegCore.learning.results import CaseScore, RoundRequest, RoundResult
from FedSegCore.volumes.preprocessing import Preprocessing

Wait = Callable[..., None]
CT = Preprocessing(modality="CT", window=(-100.0, 200.0))


@pytest.mark.parametrize("name", ["hospital.example", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1", "::1"])
def test_the_server_certificate_is_valid_for_every_name(coordinator: CoordinatorFolder, name: str) -> None:
    authority = x509.load_pem_x509_certificate(coordinator.authority_certificate.read_bytes())
    server = x509.load_pem_x509_certificate(coordinator.server_certificate.read_bytes())
    alternatives = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    told = [str(value) for kind in (x509.DNSName, x509.IPAddress) for value in alternatives.get_values_for_type(kind)]
    assert name in told
    subject = next(entry for entry in alternatives if str(entry.value) == name)
    PolicyBuilder().store(Store([authority])).build_server_verifier(subject).verify(server, [])


def test_a_host_name_that_is_no_name_is_refused(tmp_path: Path) -> None:
    settings = CoordinatorSettings(federation="tiny", hosts=("krankenhaus-münchen.example",))
    with pytest.raises(UsageError) as refused:
        CoordinatorFolder.create(tmp_path / "coordinator", settings)
    assert refused.value.code == "coordinator.host-name"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_nothing_of_a_role_can_be_read_by_others(coordinator: CoordinatorFolder, site: SiteFolder) -> None:
    assert stat.S_IMODE(coordinator.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o700
    files = [p for role in (coordinator, site) for p in role.path.rglob("*") if p.is_file()]
    secret = {"ca.key", "server.key", "control.secret", "superexec.secret", "key", "site.json", "coordinator.json"}
    assert secret <= {file.name for file in files}
    for file in files:
        if file.name != "key.pub":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_role_is_not_set_up_twice(coordinator: CoordinatorFolder, site: SiteFolder) -> None:
    key = site.private_key.read_bytes()
    with pytest.raises(UsageError):
        CoordinatorFolder.create(coordinator.path, coordinator.settings())
    with pytest.raises(UsageError):
        SiteFolder.create(site.path, site.settings(), coordinator.authority_certificate)
    assert site.private_key.read_bytes() == key


def test_a_site_key_is_openssh_p384_with_the_fingerprint_of_ssh_keygen(site: SiteFolder, tmp_path: Path) -> None:
    assert site.private_key.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    kind, blob = site.public_key.read_text().split()[:2]
    assert kind == "ecdsa-sha2-nistp384"
    expected = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    assert public_key_fingerprint(read_public_key(site.public_key)) == f"SHA256:{expected}"
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    wrong = tmp_path / "wrong.pub"
    wrong.write_bytes(other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))
    for path in (wrong, site.private_key, tmp_path / "missing"):
        with pytest.raises(BadInputError):
            read_public_key(path)


def test_the_bundle_holds_no_code_and_is_approved_by_every_site(site: SiteFolder) -> None:
    content = thin_bundle()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        assert {(entry.compress_type, entry.create_system) for entry in archive.infolist()} == {(zipfile.ZIP_STORED, 3)}
    assert site.approves(bundle_digest(content))
    other = hashlib.sha256(b"other").hexdigest()
    assert not site.approves(other)
    (site.path / "approved.json").write_text(json.dumps({"sha256": [other]}))
    assert site.approves(other)
    (site.path / "approved.json").write_text("damaged")
    assert not site.approves(other)


def test_another_flower_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flower_version.require_flower({"flwr.supercore.constant": ("TaskType",)})
    for needed in ({"flwr.supercore.constant": ("NoSuchName",)}, {"flwr.no_such_module": ()}):
        with pytest.raises(CannotDoHereError) as refused:
            flower_version.require_flower(needed)
        assert refused.value.code == "flower.version"
    monkeypatch.setattr(flower_version, "version", lambda _name: "1.42.0")
    with pytest.raises(CannotDoHereError, match=r"1\.42\.0 .* 1\.41"):
        flower_version.require_flower({})


def test_a_cohort_is_read_through_the_sites_own_numbers(tmp_path: Path) -> None:
    file = write_cohort(tmp_path / "images", seed=5, cases=3)
    told = json.loads(file.read_text())
    told["mapping"] = {"values": {"blob": [1, 7]}}
    file.write_text(json.dumps(told))
    cohort = load_cohort(file, CT, CONTRACT)
    assert [case.case_id for case in cohort.training] == ["c0", "c1"]
    assert [case.case_id for case in cohort.validation] == ["c2"]
    assert cohort.training[0].annotated == (1,)
    assert cohort.training[0].labels.sum() == 3 * 7 * 7
    with pytest.raises(BadInputError) as refused:
        load_cohort(file, Preprocessing(modality="MR", percentiles=(0.5, 99.5)), CONTRACT)
    assert refused.value.code == "cohort.other-modality"


def test_a_case_whose_mapping_forgets_a_label_is_set_aside_and_says_so(tmp_path: Path) -> None:
    file = write_cohort(tmp_path / "images", seed=5, cases=4)
    told = json.loads(file.read_text())
    told["cases"][0]["mapping"] = {"values": {"bolb": [1]}}
    file.write_text(json.dumps(told))
    cohort = load_cohort(file, CT, CONTRACT)
    assert [(aside.case_id, aside.code) for aside in cohort.set_aside] == [("c0", "cohort.label-unmapped")]
    assert [case.case_id for case in cohort.training] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told["cases"].append({**told["cases"][0], "patient": "new"}), "case ids must differ"),
        (lambda told: told["cases"][1].update(patient=told["cases"][0]["patient"]), "both train and validation"),
        (lambda told: [case.update(role="validation") for case in told["cases"]], "at least one case"),
        (lambda told: told.update(modality="ct"), "modality"),
        (lambda told: told["cases"][0].update(name="Jane Doe"), r"cases\.0\.…: Extra"),
    ],
)
def test_a_wrong_cohort_file_is_refused_by_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    file = write_cohort(tmp_path / "images", seed=5)
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))
    with pytest.raises(BadInputError, match=words) as refused:
        read_cohort_file(file)
    assert refused.value.code == "cohort.invalid"
    assert str(tmp_path) not in str(refused.value)


@given(
    weights=st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.sampled_from([np.float32, np.float16, np.int64, np.bool_]).flatmap(
            lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, max_side=3), fill=st.nothing())
        ),
        max_size=4,
    ),
    loss=st.floats(-10, 10),
)
def test_a_result_arrives_as_it_was_sent(weights: dict[str, np.ndarray], loss: float) -> None:
    scores = (CaseScore("c1", "blob", 0.5, 0.25, None), CaseScore("c2", "blob", 1.0, 1.0, 0.5))
    sent = RoundResult(weights, 3, 7, loss, scores, {"delta": np.arange(3.0)}, {"training": 1.5})
    ours, theirs = Pipe()
    with ours, theirs:
        thread = threading.Thread(target=send, args=(ours, result_frame(sent)))
        thread.start()
        got = read_result(receive(theirs))
        thread.join()
    assert (got.num_examples, got.num_steps, got.loss, got.scores) == (3, 7, loss, scores)
    assert got.seconds == {"training": 1.5}
    assert got.weights.keys() == weights.keys()
    for name, array in weights.items():
        assert got.weights[name].dtype == array.dtype
        np.testing.assert_array_equal(got.weights[name], array)
    np.testing.assert_array_equal(got.extras["delta"], [0.0, 1.0, 2.0])


@pytest.mark.parametrize("error", [BadInputError("a.b", "W.", "R."), CannotDoHereError("c.d", "W.", "R.")])
def test_an_error_arrives_as_it_was_sent(error: FedSegError) -> None:
    with pytest.raises(type(error)) as got:
        raise_error(error_frame(error))
    assert (got.value.code, got.value.what, got.value.remedy) == (error.code, error.what, error.remedy)


unix_only = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")


@unix_only
def test_the_trainer_trains_for_who_has_the_key_and_for_nobody_else(served: tuple[SiteFolder, bytes]) -> None:
    site, key = served
    address = json.loads(site.trainer_address.read_text())["address"]
    with pytest.raises(AuthenticationError):
        Client(address, authkey=b"wrong")
    with Client(address, authkey=key) as connection:
        # what ``Connection.send`` would send: a pickle, here one that would make a file if it were loaded
        connection.send_bytes(b"cos\nsystem\n(S'touch " + bytes(site.path) + b"/pwned'\ntR.")
        with pytest.raises(EOFError):
            connection.recv_bytes()
    assert not (site.path / "pwned").exists()

    config = tiny_federation()
    task = training_task(config, "CT")
    weights = initial_model(task.network, config.seed)
    client = TrainerClient(site)
    described = client.describe()
    assert (described.modality, described.training_cases, described.validation_cases) == ("CT", 1, 1)
    result = client.train_round(task, weights, RoundRequest(1, 2, 3))
    assert result.num_steps == 1
    assert result.weights.keys() == weights.keys()
    assert any(not np.array_equal(result.weights[name], weights[name]) for name in weights)


@unix_only
def test_a_round_is_cancelled_by_the_end_of_the_connection(served: tuple[SiteFolder, bytes], wait_until: Wait) -> None:
    site, _ = served
    config = tiny_federation(training={"batch_size": 1, "steps_per_round": 100_000, "patch_size": (8, 16, 16)})
    task = training_task(config, "CT")
    weights = initial_model(task.network, config.seed)
    # a short limit makes the client close its connection while the trainer is at work
    settings = site.settings().model_copy(update={"round_limit_s": 3.0})
    site.settings_file.write_text(settings.model_dump_json())
    codes: list[str] = []

    def ask() -> None:
        try:
            TrainerClient(site).train_round(task, weights, RoundRequest(1, 2, 3))
        except FedSegError as error:
            codes.append(error.code)

    def state() -> str:
        return json.loads(site.progress.read_text())["state"] if site.progress.exists() else ""

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: state() == "training", 30.0)
    thread.join(30.0)
    wait_until(lambda: state() == "idle", 10.0)
    assert codes == ["trainer.too-slow"]


@unix_only
def test_stopping_a_tree_also_ends_what_does_not_listen(tmp_path: Path, wait_until: Wait) -> None:
    deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('up', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        assert root.stdout.readline() == b"up\n"
        family = [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]
        assert len(family) == 2
        started = time.monotonic()
        stop_trees([root], grace_s=0.5)
    assert time.monotonic() - started < 10.0
    assert alive(family) == []


def test_a_child_that_ends_at_once_is_given_up_and_one_that_lived_is_not() -> None:
    soon = Restarts(most=3, soon_s=0.2)
    for _ in range(3):
        assert not soon.exhausted()
        soon.started()
    assert soon.exhausted()
    time.sleep(0.25)
    assert not soon.exhausted()
    soon.started()
    assert not soon.exhausted()


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "log"
    tail = LogTail(file)
    assert tail.lines() == []
    with file.open("ab") as log:
        log.write(b'{"a": 1}\nnot json\n{"a"')
    assert tail.objects() == [{"a": 1}]
    with file.open("ab") as log:
        log.write(b": 2}\n")
    assert tail.objects() == [{"a": 2}]
    assert tail.lines() == []
    assert LogTail(file, from_end=True).lines() == []


def test_a_log_that_grows_is_set_aside_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    tail = LogTail(file)
    with file.open("ab") as log:
        log.write(b"a" * 50 + b"\nlast\n")
        log.flush()
        assert tail.lines()[-1] == "last"
        cut_log(file, 100)
        assert file.stat().st_size == 56
        cut_log(file, 40)
        assert file.stat().st_size == 0
        log.write(b"next\n")
    assert (tmp_path / "log.1").read_bytes().endswith(b"\nlast\n")
    assert file.read_bytes() == b"next\n"
    assert tail.lines() == ["next"]
    cut_log(tmp_path / "none", 1)


def test_progress_of_a_run_is_the_mean_of_its_groups(coordinator: CoordinatorFolder) -> None:
    run_folder = write_run(coordinator, "first", tiny_federation())
    told: list[tuple[float, str]] = []
    follower = RunFollower(run_folder, Progress(lambda fraction, stage: told.append((fraction, stage))))
    events = [
        {"event": "round-closed", "group": "CT", "round": 2, "rounds": 4, "message": "CT closed."},
        {"event": "round-started", "group": "MR", "round": 2, "rounds": 4, "message": "MR started."},
    ]
    (run_folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    follower.tick()
    # CT has done 2 of 4 rounds, MR 1 of 4
    assert told[-1] == (pytest.approx(0.375), "MR started.")
    with pytest.raises(UsageError):
        write_run(coordinator, "../escape", tiny_federation())


def test_sending_a_frame_never_pickles() -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        send(ours, Frame({"method": "describe"}))
        assert json.loads(theirs.recv_bytes()) == {"method": "describe", "tensors": False}


def test_a_refused_site_tries_on_until_the_refusal_lasts(site: SiteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SuperNode's end means, told by its exit code and its log, without any process."""
    now = [1000.0]
    monkeypatch.setattr("FedSegCore.federation.site.node.time.monotonic", lambda: now[0])
    processes = SiteProcesses(site)

    def ends(code: int, log: str) -> ProcessesState:
        processes._recent = [log]
        processes._explain_end(code)
        return processes.state

    # the same end for an expelled site and for one whose clock is wrong
    assert ends(0, "") is ProcessesState.RETRYING
    now[0] += 74.0
    assert ends(1, "Exit Code: 305") is ProcessesState.RETRYING
    # connected again: nothing is counted against it
    processes._note_connection(["connected to the federation"])
    now[0] += 500.0
    assert ends(1, "Exit Code: 305") is ProcessesState.RETRYING
    assert ends(0, "") is ProcessesState.RETRYING
    now[0] += 75.0
    assert ends(0, "") is ProcessesState.RETRYING
    assert ends(1, "Exit Code: 305") is ProcessesState.ENDED
    assert processes.error is not None
    assert processes.error.code == "site.expelled"
