"""From invitation to request to admission, in files; what needs a running SuperLink is in test_enrolment."""

import base64
import datetime as dt
import hashlib
import json
import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store
from tiny_deployment import tiny_federation, write_cohort

from FedSegCore.common.errors import BadInputError, FedSegError, UsageError
from FedSegCore.federation.coordinator import certificates
from FedSegCore.federation.coordinator.admission import add_request, admit, admit_key, expel, invite, pending
from FedSegCore.federation.coordinator.certificates import certificate_end, expiry_notice
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder, CoordinatorSettings, everywhere
from FedSegCore.federation.coordinator.renewal import mend, renew
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.join_request import read_request, write_request
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.joining import Joined, NewSite, federation_words, join
from FedSegCore.federation.site.keys import read_private_key
from FedSegCore.federation.site.policy import SitePolicy
from FedSegCore.learning.privacy import METRICS
from FedSegCore.models.signing import fingerprint_of

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(days=1)
posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")


@pytest.fixture
def invited(coordinator: CoordinatorFolder, tmp_path: Path) -> Path:
    invite(coordinator, tmp_path / "invitation.json", tiny_federation(), 10, NOW)
    return tmp_path / "invitation.json"


@pytest.fixture
def joined(invited: Path, tmp_path: Path) -> Joined:
    return join(tmp_path / "north", invited, "north", now=NOW)


@pytest.fixture
def control(coordinator: CoordinatorFolder) -> ControlClient:
    """Return the client of a SuperLink that does not run: whoever gets as far as asking it has passed every check."""
    return ControlClient(coordinator)


def code_of(call: Callable[[], object], kind: type[FedSegError] = BadInputError) -> str:
    with pytest.raises(kind) as refused:
        call()
    assert refused.value.remedy
    return refused.value.code


def by_hand(public_key_line: str) -> str:
    """The fingerprint worked out here: 80 bits of the SHA-256 of the key's bytes, in groups of four."""
    digits = hashlib.sha256(base64.b64decode(public_key_line.split()[1])).hexdigest()[:20].upper()
    return "-".join(digits[n : n + 4] for n in range(0, 20, 4))


def kinds(folder: SiteFolder) -> list[str]:
    return [line.entry.kind for line in folder.journal.lines()]


def test_joining_makes_a_site_and_a_request(joined: Joined, invited: Path, coordinator: CoordinatorFolder) -> None:
    site = joined.folder
    assert SiteFolder.open(site.path).settings() == SiteSettings(name="north", coordinator="hospital.example:9443")
    assert site.authority_certificate.read_bytes() == coordinator.authority_certificate.read_bytes()
    assert site.invitation() == joined.invitation
    assert site.invitation_file.read_bytes() == invited.read_bytes()
    assert joined.fingerprint == by_hand(site.public_key.read_text())
    request = read_request(joined.request_file)
    assert (request.site, request.invitation, request.fingerprint) == (
        "north",
        joined.invitation.id,
        joined.fingerprint,
    )
    assert request.public_key == site.public_key.read_text().strip()
    assert (joined.compared, joined.again) == (False, False)
    assert kinds(site) == ["enrolled", "invitation-accepted"]
    accepted = list(site.journal.lines())[1].entry
    assert accepted.invitation_sha256 == hashlib.sha256(invited.read_bytes()).hexdigest()
    assert site.journal.verify().whole


def test_the_coordinators_fingerprint_is_compared_where_it_is_told(invited: Path, tmp_path: Path) -> None:
    key = json.loads(invited.read_text())["invitation"]["coordinator_public_key"]
    digits = hashlib.sha256(bytes.fromhex(key)).hexdigest()[:20]
    wrong = ("0" if digits[0] != "0" else "1") + digits[1:]
    for told in (wrong, digits[:-1], ""):
        call = lambda told=told: join(tmp_path / "n", invited, "n", coordinator_fingerprint=told, now=NOW)  # noqa: E731
        assert code_of(call) == "invitation.other-coordinator"
    assert not (tmp_path / "n").exists()
    spoken = " ".join(digits[n : n + 4] for n in range(0, 20, 4))
    joined = join(tmp_path / "n", invited, "n", coordinator_fingerprint=spoken, now=NOW)
    assert joined.compared
    assert list(joined.folder.journal.lines())[1].entry.compared


def test_nothing_is_made_of_an_invitation_that_is_refused(invited: Path, tmp_path: Path) -> None:
    told = json.loads(invited.read_text())
    told["invitation"]["addresses"] = ["evil.example:9443"]
    (tmp_path / "tampered.json").write_text(json.dumps(told))
    for file, now, code in (
        (tmp_path / "tampered.json", NOW, "invitation.tampered"),
        (invited, NOW + dt.timedelta(days=11), "invitation.expired"),
        (invited, NOW - dt.timedelta(days=1), "invitation.from-the-future"),
    ):
        assert code_of(lambda file=file, now=now: join(tmp_path / "n", file, "n", now=now)) == code
    assert code_of(lambda: join(tmp_path / "n", invited, "../n", now=NOW), UsageError) == "site.settings"
    elsewhere = lambda: join(tmp_path / "n", invited, "n", address="192.0.2.8:9443", now=NOW)  # noqa: E731
    assert code_of(elsewhere, UsageError) == "site.address"
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(("asked", "stricter"), [(1, False), (12, True)])
def test_the_sites_policy_is_its_own(
    coordinator: CoordinatorFolder, tmp_path: Path, asked: int, stricter: bool
) -> None:
    rules = {"minimum_cases": asked, "metrics": list(reversed(METRICS)), "norm_bound": None}
    invite(coordinator, tmp_path / "i", tiny_federation(privacy=rules), 10, NOW)
    own = SitePolicy(privacy=SitePolicy().privacy.model_copy(update={"minimum_cases": 8}))
    joined = join(tmp_path / "north", tmp_path / "i", "north", NewSite(policy=own), now=NOW)
    assert joined.folder.policy() == own
    said = " ".join(federation_words(joined.invitation, own))
    assert ("minimum_cases 12 instead of 8" in said) == stricter
    assert ("stricter" in said) == stricter
    assert "Structures: blob." in said


def test_a_site_takes_a_newer_invitation_of_its_own_coordinator_only(
    joined: Joined, invited: Path, coordinator: CoordinatorFolder, tmp_path: Path
) -> None:
    site = joined.folder
    site.policy_file.write_text(json.dumps({"privacy": {"minimum_cases": 9}}))
    key = site.private_key.read_bytes()
    renew(coordinator, ["new.example"])
    invite(coordinator, tmp_path / "newer", None, 10, LATER)
    again = join(site.path, tmp_path / "newer", "north", address="new.example:9443", now=LATER)
    assert (again.again, again.fingerprint) == (True, joined.fingerprint)
    assert site.settings().coordinator == "new.example:9443"
    assert site.private_key.read_bytes() == key
    assert site.policy().privacy.minimum_cases == 9
    assert kinds(site) == ["enrolled", "invitation-accepted", "invitation-accepted"]
    assert read_request(again.request_file).invitation == again.invitation.id
    # the address in use stays, without a wish
    assert join(site.path, tmp_path / "newer", "north", now=LATER).folder.settings().coordinator == "new.example:9443"

    assert code_of(lambda: join(site.path, invited, "north", now=LATER)) == "invitation.older"
    assert code_of(lambda: join(site.path, tmp_path / "newer", "south", now=LATER), UsageError) == "site.exists"
    other = CoordinatorFolder.create(tmp_path / "other", coordinator.settings())
    invite(other, tmp_path / "others", None, 10, LATER)
    assert code_of(lambda: join(site.path, tmp_path / "others", "north", now=LATER), UsageError) == "site.exists"
    for given in (NewSite(device="cpu"), NewSite(cohort=tmp_path / "c"), NewSite(policy=SitePolicy())):
        call = lambda given=given: join(site.path, tmp_path / "newer", "north", given, now=LATER)  # noqa: E731
        assert code_of(call, UsageError) == "site.set-up"
    assert site.invitation() == again.invitation

    new = join(site.path, tmp_path / "newer", "north", new_key=True, now=LATER)
    assert new.fingerprint == by_hand(site.public_key.read_text()) != joined.fingerprint
    assert site.private_key.read_bytes() != key
    assert kinds(site)[-2:] == ["enrolled", "invitation-accepted"]


def test_a_site_that_was_set_up_by_hand_takes_no_invitation(site: SiteFolder, invited: Path) -> None:
    assert site.invitation() is None
    assert code_of(lambda: join(site.path, invited, "a", now=NOW), UsageError) == "site.exists"


def test_requests_wait_until_they_are_admitted_and_wrong_ones_do_not(
    joined: Joined, coordinator: CoordinatorFolder, tmp_path: Path
) -> None:
    assert pending(coordinator) == ()
    for _ in range(2):
        add_request(coordinator, joined.request_file, NOW)
    assert [(request.site, request.fingerprint) for request in pending(coordinator)] == [("north", joined.fingerprint)]

    expired = NOW + dt.timedelta(days=11)
    code = code_of(lambda: add_request(coordinator, joined.request_file, expired))
    assert code == "request.invitation-expired"
    other = CoordinatorFolder.create(tmp_path / "other", coordinator.settings())
    assert code_of(lambda: add_request(other, joined.request_file, NOW)) == "request.other-invitation"
    key, request = read_private_key(joined.folder.private_key), read_request(joined.request_file)
    for change in ({"flower": "1.42"}, {"app_sha256": "0" * 64}):
        write_request(request.model_copy(update=change), key, tmp_path / "odd")
        assert code_of(lambda: add_request(coordinator, tmp_path / "odd", NOW)) == "request.software"

    coordinator.keep_sites((AdmittedSite(name="North", node_id=1, fingerprint="SHA256:other"),))
    assert code_of(lambda: add_request(coordinator, joined.request_file, NOW)) == "request.name-taken"
    digest = hashlib.sha256(base64.b64decode(request.public_key.split()[1])).digest()
    ours = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    coordinator.keep_sites((AdmittedSite(name="else", node_id=1, fingerprint=ours),))
    assert code_of(lambda: add_request(coordinator, joined.request_file, NOW)) == "request.admitted"
    (coordinator.requests / "damaged.json").write_text("{")
    assert len(pending(coordinator)) == 1


def test_nobody_is_admitted_without_the_fingerprint_that_was_read_out(
    joined: Joined, coordinator: CoordinatorFolder, control: ControlClient, tmp_path: Path
) -> None:
    add_request(coordinator, joined.request_file, NOW)
    other = join(tmp_path / "other", tmp_path / "invitation.json", "north", now=NOW)
    key_file = joined.folder.public_key
    for told in ("", other.fingerprint, joined.fingerprint[:-1], joined.fingerprint + "0", "SHA256:"):
        for call in (
            lambda told=told: admit(coordinator, control, "north", told, NOW),
            lambda told=told: admit(coordinator, control, str(joined.request_file), told, NOW),
            lambda told=told: admit_key(coordinator, control, "north", key_file, told),
        ):
            assert code_of(call) == "admission.fingerprint"
    assert code_of(lambda: admit(coordinator, control, "south", joined.fingerprint)) == "admission.no-request"
    assert code_of(lambda: expel(coordinator, control, "north")) == "admission.no-site"
    spoken = joined.fingerprint.lower().replace("-", " ")
    for right in (spoken, joined.fingerprint):
        with pytest.raises(FedSegError, match=r"coordinator\.not-running"):
            admit(coordinator, control, "north", right, NOW)
    # two who want the same name: the fingerprint says which one is meant
    add_request(coordinator, other.request_file, NOW)
    with pytest.raises(FedSegError, match=r"coordinator\.not-running"):
        admit(coordinator, control, "north", other.fingerprint, NOW)
    assert len(pending(coordinator)) == 2


def test_no_key_serves_two_roles_and_all_private_files_are_their_owners_only(
    joined: Joined, coordinator: CoordinatorFolder, tmp_path: Path
) -> None:
    add_request(coordinator, joined.request_file, NOW)
    renew(coordinator)
    south = join(tmp_path / "south", tmp_path / "invitation.json", "south", now=NOW)
    pems = [
        coordinator.path / "ca" / "ca.key",
        coordinator.server_key,
        coordinator.identity_key,
        coordinator.release_key,
    ]
    keys = [load_pem_private_key(path.read_bytes(), None).public_key() for path in pems]
    keys += [load_ssh_private_key(s.folder.private_key.read_bytes(), None).public_key() for s in (joined, south)]
    raw = {key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}
    assert len(raw) == len(keys) == 6
    folders = (coordinator, joined.folder, south.folder)
    secrets = [file.read_bytes() for folder in folders for file in folder.path.glob("*.secret")]
    assert len(set(secrets)) == len(secrets) == 6
    if os.name == "posix":
        for folder in folders:
            assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
            for file in folder.path.rglob("*"):
                if file.is_file() and file.name != "key.pub":
                    assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    sent = (tmp_path / "invitation.json").read_bytes() + joined.request_file.read_bytes()
    assert b"PRIVATE" not in sent
    assert not any(secret in sent for secret in secrets)


def test_renewal_keeps_the_authority_and_adds_hosts(coordinator: CoordinatorFolder) -> None:
    authority = coordinator.authority_certificate.read_bytes()
    before = coordinator.server_certificate.read_bytes(), coordinator.server_key.read_bytes()
    assert code_of(lambda: renew(coordinator, ["*.example"]), UsageError) == "coordinator.host-name"
    assert (coordinator.server_certificate.read_bytes(), coordinator.server_key.read_bytes()) == before
    settings = renew(coordinator, ["2001:db8::99", "hospital.example", "[2001:DB8::7]", "new.example"])
    assert settings.hosts == ("hospital.example", "192.0.2.7", "2001:db8::7", "2001:db8::99", "new.example")
    assert coordinator.settings() == settings
    assert coordinator.authority_certificate.read_bytes() == authority
    after = coordinator.server_certificate.read_bytes(), coordinator.server_key.read_bytes()
    assert after[0] != before[0]
    assert after[1] != before[1]
    server = x509.load_pem_x509_certificate(after[0])
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len({str(name.value) for name in names}) == len(list(names)) == 5 + 3
    for name in names:
        verifier = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(authority)])).build_server_verifier(name)
        verifier.verify(server, [])
    (coordinator.path / "ca" / "ca.key").write_bytes(after[1])
    assert code_of(lambda: renew(coordinator)) == "coordinator.authority"
    (coordinator.path / "ca" / "ca.key").unlink()
    assert code_of(lambda: renew(coordinator)) == "coordinator.authority"
    assert coordinator.server_certificate.read_bytes() == after[0]


def test_people_are_told_before_the_certificate_expires(coordinator: CoordinatorFolder) -> None:
    end = certificate_end(coordinator.server_certificate)
    assert abs(end - dt.datetime.now(dt.UTC) - dt.timedelta(days=825)) < dt.timedelta(hours=1)
    assert expiry_notice(coordinator.server_certificate, end - dt.timedelta(days=31)) == ""
    assert "expires in 30 days" in expiry_notice(coordinator.server_certificate, end - dt.timedelta(days=29, hours=1))
    assert "expired on" in expiry_notice(coordinator.server_certificate, end)
    coordinator.server_certificate.write_text("damaged")
    assert code_of(lambda: expiry_notice(coordinator.server_certificate)) == "coordinator.certificate"


def test_status_tells_of_a_certificate_that_expires_soon(
    coordinator: CoordinatorFolder, fedseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "certificate" not in fedseg("coordinator", "status", coordinator.path).err
    monkeypatch.setattr(certificates, "_SERVER_DAYS", 10)
    renew(coordinator)
    assert "The server certificate expires in 10 days" in fedseg("coordinator", "status", coordinator.path).err


def test_a_renewal_that_was_cut_off_is_mended_at_the_next_start(coordinator: CoordinatorFolder) -> None:
    before = coordinator.server_certificate.read_bytes()
    mend(coordinator)
    assert coordinator.server_certificate.read_bytes() == before
    key = coordinator.server_key.read_bytes()
    renew(coordinator)
    coordinator.server_key.write_bytes(key)
    mend(coordinator)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(coordinator.server_certificate, coordinator.server_key)
    coordinator.server_certificate.unlink()
    mend(coordinator)
    context.load_cert_chain(coordinator.server_certificate, coordinator.server_key)


def test_an_invitation_that_nobody_could_read_is_not_written(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    renew(coordinator, [f"192.0.2.{number}" for number in range(100, 135)])
    assert code_of(lambda: invite(coordinator, tmp_path / "i", None, 1)) == "invitation.not-possible"
    coordinator.authority_certificate.unlink()
    assert code_of(lambda: invite(coordinator, tmp_path / "i", None, 1)) == "invitation.not-possible"
    assert not (tmp_path / "i").exists()


def test_a_server_certificate_does_not_outlive_its_authority(
    coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_SERVER_DAYS", 5000)
    renew(coordinator)
    assert certificate_end(coordinator.server_certificate) == certificate_end(coordinator.authority_certificate)


def test_the_listener_is_bound_for_the_addresses_given() -> None:
    assert everywhere(["hospital.example", "192.0.2.7"]) == "0.0.0.0"
    assert everywhere(["hospital.example", "2001:db8::7"]) == "::"
    assert CoordinatorSettings(federation="f", hosts=("[::1]",)).addresses == ("[::1]:9443",)


def test_the_commands_of_joining(fedseg: Callable[..., Any], tmp_path: Path) -> None:
    coordinator, site, file = tmp_path / "c", tmp_path / "s", tmp_path / "i.json"
    made = fedseg("coordinator", "init", coordinator, "--federation", "tiny", "--host", "::1", "--host", "h.example")
    assert made.code == 0, made.err
    assert json.loads((coordinator / "coordinator.json").read_text())["fleet_host"] == "::"
    invited = json.loads(fedseg("coordinator", "invite", coordinator, "--out", file, "--json").out.splitlines()[-1])
    assert invited["addresses"] == ["[::1]:9443", "h.example:9443"]
    for told in (
        made,
        fedseg("coordinator", "status", coordinator),
        fedseg("coordinator", "invite", coordinator, "--out", file),
    ):
        assert f"{invited['fingerprint']}  of its invitations: for sites that join" in told.err
        assert f"{invited['release_fingerprint']}  of its releases: for people who get a model" in told.err
    assert invited["release_fingerprint"] == fingerprint_of(bytes.fromhex(invited["release_public_key"]))
    assert fedseg("coordinator", "invite", coordinator, "--out", file, "--days", 400).code == 2
    wrong = fedseg("site", "join", file, site, "--name", "north", "--coordinator-fingerprint", "ABCD")
    assert (wrong.code, "invitation.other-coordinator" in wrong.err, site.exists()) == (3, True, False)
    cohort = write_cohort(tmp_path / "images", seed=1)
    told = fedseg("site", "join", file, site, "--name", "north", "--cohort", cohort, "--minimum-cases", 1, "--json")
    assert told.code == 0, told.err
    assert "Nothing proves yet" in told.err
    assert invited["fingerprint"] in told.err
    assert "[::1]:9443" in told.err
    assert (SiteFolder(site).cohort, SiteFolder(site).policy().privacy.minimum_cases) == (cohort, 1)
    unused = fedseg("site", "join", file, site, "--name", "north", "--minimum-cases", 1)
    assert (unused.code, "site.set-up" in unused.err) == (2, True)
    many = fedseg("site", "join", file, tmp_path / "n", "--name", "n", "--minimum-cases", 100_001)
    assert (many.code, "policy.minimum-cases" in many.err, (tmp_path / "n").exists()) == (2, True, False)
    fingerprint = json.loads(told.out.splitlines()[-1])["fingerprint"]
    listed = fedseg("coordinator", "requests", coordinator, "--add", site / "join-request.json", "--json")
    (waiting,) = json.loads(listed.out.splitlines()[-1])["requests"]
    assert (waiting["site"], waiting["fingerprint"]) == ("north", fingerprint)
    assert fedseg("coordinator", "admit", coordinator, "north", "--fingerprint", "0" * 20).code == 3
    assert fedseg("coordinator", "admit", coordinator, "north", "--fingerprint", fingerprint).code == 4
    assert "not compared" in " ".join(fedseg("site", "journal", site).err.split())
    renewed = fedseg("coordinator", "renew", coordinator, "--host", "new.example", "--json")
    assert json.loads(renewed.out.splitlines()[-1])["hosts"] == ["::1", "h.example", "new.example"]
    run = coordinator / "runs" / "first"
    run.mkdir()
    events = [{"event": "round-closed", "group": "CT", "round": 2, "rounds": 4, "message": "m", "time": 5.0}]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    shown = fedseg("coordinator", "runs", coordinator, "--json")
    assert json.loads(shown.out.splitlines()[-1])["runs"] == [
        {"run": "first", "stage": "running", "code": "", "time": 5.0, "groups": {"CT": {"closed": 2, "rounds": 4}}}
    ]
    assert "CT 2 of 4 rounds" in shown.err
