"""Invitations and requests to join as files: what they hold, and that every other file is refused in words."""

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_deployment import tiny_federation

import FedSegCore
from FedSegCore.common.errors import BadInputError, FedSegError, UsageError
from FedSegCore.common.names import NAME, is_name
from FedSegCore.federation import invitation as invitations
from FedSegCore.federation.addresses import address_of, host_of
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.invitation import (
    Invitation,
    parse_invitation,
    read_invitation,
    write_invitation,
)
from FedSegCore.federation.join_request import JoinRequest, make_request, parse_request, read_request, write_request
from FedSegCore.models.signing import load_or_make_key

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def invited(coordinator: CoordinatorFolder, tmp_path: Path) -> Path:
    """Return an invitation made on 1 March 2026 for ten days."""
    federation = tiny_federation(privacy={"minimum_cases": 7, "delta": 1e-6})
    invite(coordinator, tmp_path / "invitation.json", federation, 10, NOW)
    return tmp_path / "invitation.json"


def canonical(kind: str, content: dict[str, Any]) -> bytes:
    """The message that is signed, written down here a second time."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"fedseg-{kind}-1".encode() + b"\0" + text.encode()


def signed_again(folder: CoordinatorFolder, file: Path, change: Change) -> bytes:
    """Return the invitation with a change that its coordinator has signed."""
    content = json.loads(file.read_text())["invitation"]
    change(content)
    signature = load_or_make_key(folder.identity_key).sign(canonical("invitation", content)).hex()
    return json.dumps({"format": "fedseg-invitation-1", "invitation": content, "signature": signature}).encode()


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(BadInputError) as refused:
        call()
    assert refused.value.remedy
    return refused.value.code


def test_an_invitation_holds_what_a_site_needs(invited: Path, coordinator: CoordinatorFolder) -> None:
    told = json.loads(invited.read_text())
    content = told["invitation"]
    assert content["addresses"] == ["hospital.example:9443", "192.0.2.7:9443", "[2001:db8::7]:9443"]
    assert content["federation"] == "tiny"
    assert content["authority_certificate"] == coordinator.authority_certificate.read_text()
    assert [label["name"] for label in content["contract"]["labels"]] == ["blob"]
    assert (content["groups"], content["privacy"]["minimum_cases"]) == (["CT"], 7)
    assert (content["flower"], content["software_version"]) == ("1.41", FedSegCore.__version__)
    assert (content["made"], content["expires"]) == ("2026-03-01T12:00:00Z", "2026-03-11T12:00:00Z")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(content["coordinator_public_key"]))
    key.verify(bytes.fromhex(told["signature"]), canonical("invitation", content))

    read = read_invitation(invited, NOW + dt.timedelta(days=9))
    assert read.model_dump(mode="json") == content
    digits = hashlib.sha256(bytes.fromhex(content["coordinator_public_key"])).hexdigest()[:20].upper()
    assert read.fingerprint.replace("-", "") == digits
    kept = coordinator.invitations / f"{read.id}.json"
    assert kept.read_bytes() == invited.read_bytes()


def test_one_group_and_no_decision_are_told_too(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    together = invite(coordinator, tmp_path / "a", tiny_federation(grouping="together"), 1)
    assert together.groups == ("all",)
    undecided = invite(coordinator, tmp_path / "b", None, 1)
    assert (undecided.contract, undecided.groups) == (None, ())
    assert undecided.id != together.id
    for days in (0, 367):
        with pytest.raises(UsageError, match=r"invitation\.days"):
            invite(coordinator, tmp_path / "c", None, days)
    with pytest.raises(UsageError, match=r"invitation\.out"):
        invite(coordinator, tmp_path / "nowhere" / "c", None, 1)


def test_an_invitation_holds_from_its_making_to_its_end_and_no_longer(invited: Path) -> None:
    read_invitation(invited, NOW - dt.timedelta(minutes=9))
    read_invitation(invited, NOW + dt.timedelta(days=10))
    late = NOW + dt.timedelta(days=10, seconds=1)
    assert code_of(lambda: read_invitation(invited, late)) == "invitation.expired"
    early = NOW - dt.timedelta(minutes=11)
    assert code_of(lambda: read_invitation(invited, early)) == "invitation.from-the-future"


def test_whatever_was_changed_after_signing_is_noticed(invited: Path) -> None:
    whole = json.loads(invited.read_text())
    changes: list[Change] = [
        lambda told: told["invitation"].update(addresses=["evil.example:9443"]),
        lambda told: told["invitation"].update(coordinator_public_key="0" * 64),
        lambda told: told["invitation"].update(coordinator_public_key=None),
        lambda told: told["invitation"].update(expires="2027-03-01T12:00:00Z"),
        lambda told: told["invitation"]["privacy"].update(minimum_cases=1),
        lambda told: told["invitation"].update(more=1),
        lambda told: told["invitation"].pop("groups"),
        lambda told: told.update(signature=told["signature"][:-1] + ("1" if told["signature"][-1] == "0" else "0")),
        lambda told: told.update(signature="no hexadecimal"),
        lambda told: told.update(more=1),
        lambda told: told.pop("signature"),
        lambda told: told.update(invitation=[]),
    ]
    for change in changes:
        told = json.loads(json.dumps(whole))
        change(told)
        assert code_of(lambda told=told: parse_invitation(json.dumps(told).encode())) == "invitation.tampered"
    # what mail programs do to text changes nothing
    moved = b"\xef\xbb\xbf" + json.dumps(whole, indent=8).replace("\n", "\r\n").encode()
    assert parse_invitation(moved) == parse_invitation(invited.read_bytes())


def test_what_is_no_invitation_is_refused_in_words(invited: Path, tmp_path: Path) -> None:
    whole = json.loads(invited.read_text())
    deep = b"[" * 100_000 + b"]" * 100_000
    for data in (b"", b"hello", b"[]", b"{}", b"\xff\xfe", deep, b'{"format": NaN}', b'{"a": 1, "a": 2}', b"9" * 9000):
        assert code_of(lambda data=data: parse_invitation(data)) == "invitation.not-json"
    assert code_of(lambda: parse_invitation(b" " * 300_000)) == "invitation.too-large"
    # a person would read the first of two entries, a program the second, signed one
    twice = invited.read_bytes().replace(b'"federation": "tiny"', b'"federation": "other", "federation": "tiny"')
    assert code_of(lambda: parse_invitation(twice)) == "invitation.not-json"
    newer = json.dumps({**whole, "format": "fedseg-invitation-2"}).encode()
    assert code_of(lambda: parse_invitation(newer)) == "invitation.foreign-format"
    other = json.dumps({**whole, "format": "fedseg-join-request-1"}).encode()
    assert code_of(lambda: parse_invitation(other)) == "invitation.not-json"
    assert code_of(lambda: read_invitation(tmp_path / "missing")) == "invitation.unreadable"
    (tmp_path / "large").write_bytes(b" " * 300_000)
    assert code_of(lambda: read_invitation(tmp_path / "large")) == "invitation.too-large"


def test_a_coordinator_cannot_sign_nonsense(invited: Path, coordinator: CoordinatorFolder) -> None:
    leaf = coordinator.server_certificate.read_text()
    changes: list[Change] = [
        lambda told: told.update(addresses=[]),
        lambda told: told.update(addresses=["hospital.example"]),
        lambda told: told.update(addresses=["hospital.example:70000"]),
        lambda told: told.update(addresses=["hospital.example/\x1b[31m:9443"]),
        lambda told: told.update(federation="../../etc"),
        lambda told: told.update(authority_certificate="none"),
        lambda told: told.update(authority_certificate=leaf),
        lambda told: told.update(authority_certificate=told["authority_certificate"] * 2),
        lambda told: told.update(expires=told["made"]),
        lambda told: told.update(expires="2036-03-01T12:00:00Z"),
        lambda told: told.update(made="2026-03-01T12:00:00"),
        lambda told: told.update(release_public_key=told["coordinator_public_key"]),
        lambda told: told["privacy"].update(minimum_cases="7"),
        lambda told: told.update(app_sha256="7a"),
        lambda told: told.update(more=1),
    ]
    for change in changes:
        data = signed_again(coordinator, invited, change)
        assert code_of(lambda data=data: parse_invitation(data)) == "invitation.invalid"


def test_other_versions_are_refused_at_joining_and_readable_later(
    invited: Path, coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change, code in (
        (lambda told: told.update(flower="1.42"), "invitation.flower-version"),
        (lambda told: told.update(app_sha256="0" * 64, software_version="9.9.9"), "invitation.app"),
    ):
        data = signed_again(coordinator, invited, change)
        invited.with_name("other.json").write_bytes(data)
        assert code_of(lambda: read_invitation(invited.with_name("other.json"), NOW)) == code
        assert isinstance(parse_invitation(data), Invitation)
    monkeypatch.setattr(invitations, "version", lambda _name: "1.42.0")
    with pytest.raises(BadInputError, match=r"1\.41; here is 1\.42"):
        read_invitation(invited, NOW)


ADDRESSES = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,8}){0,3}", fullmatch=True)
).filter(lambda host: not host.replace(".", "").isdigit() or host.count(".") == 3)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    hosts=st.lists(ADDRESSES, min_size=1, max_size=4),
    port=st.integers(1, 65535),
    name=st.from_regex(NAME, fullmatch=True).filter(is_name),
    privacy=st.fixed_dictionaries(
        {
            "minimum_cases": st.integers(1, 1000),
            "norm_bound": st.none() | st.floats(1e-9, 1e9),
            "delta": st.floats(1e-12, 0.1),
            "metrics": st.sampled_from([(), ("loss",), ("overlap", "seconds")]),
        }
    ),
    made=st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(dt.UTC)),
    days=st.integers(1, 366),
)
def test_every_invitation_comes_back_as_it_was(
    invited: Path, hosts: list[str], port: int, name: str, privacy: dict[str, Any], made: dt.datetime, days: int
) -> None:
    key = Ed25519PrivateKey.generate()
    sent = parse_invitation(invited.read_bytes()).model_copy(
        update={"coordinator_public_key": key.public_key().public_bytes_raw().hex()}
    )
    sent = Invitation.model_validate(
        {
            **sent.model_dump(),
            "federation": name,
            "addresses": [address_of(host, port) for host in hosts],
            "privacy": privacy,
            "made": made,
            "expires": made + dt.timedelta(days=days),
        }
    )
    file = invited.with_name("roundtrip.json")
    write_invitation(sent, key, file)
    assert read_invitation(file, made) == sent


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_gives_a_coded_error_or_the_same_object(invited: Path, data: st.DataObject) -> None:
    content = bytearray(invited.read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 8)))
    content[start:end] = data.draw(st.binary(max_size=8))
    try:
        parsed = parse_invitation(bytes(content))
    except FedSegError as error:
        assert error.code.startswith("invitation.")  # noqa: PT017 - either outcome is right
    else:
        assert parsed == parse_invitation(invited.read_bytes())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_json_in_a_files_place_gives_a_coded_error(value: Any) -> None:
    for kind, parse in (("invitation", parse_invitation), ("join-request", parse_request)):
        whole = {"format": f"fedseg-{kind}-1", kind: value, "signature": "00"}
        for told in (value, whole, {**whole, kind: {"public_key": value, "coordinator_public_key": value}}):
            with pytest.raises(BadInputError):
                parse(json.dumps(told).encode())


def requested(invited: Path, name: str = "north") -> tuple[JoinRequest, ec.EllipticCurvePrivateKey, Path]:
    key = ec.generate_private_key(ec.SECP384R1())
    request = make_request(name, parse_invitation(invited.read_bytes()), key)
    file = invited.with_name("request.json")
    write_request(request, key, file)
    return request, key, file


def test_a_request_proves_that_the_site_has_its_key(invited: Path) -> None:
    request, _, file = requested(invited)
    told = json.loads(file.read_text())
    content = told["join-request"]
    assert (content["site"], content["federation"]) == ("north", "tiny")
    assert content["invitation"] == json.loads(invited.read_text())["invitation"]["id"]
    public = load_ssh_public_key(content["public_key"].encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(bytes.fromhex(told["signature"]), canonical("join-request", content), ec.ECDSA(hashes.SHA384()))
    assert read_request(file) == request
    assert request.key == public

    other, _, _ = requested(invited, "south")
    for change in (
        {"site": "south"},
        {"public_key": other.public_key},
        {"public_key": content["public_key"] + " a comment"},
        {"public_key": "ssh-rsa AAAA"},
        {"public_key": None},
        {"more": 1},
    ):
        whole = {**told, "join-request": {**content, **change}}
        assert code_of(lambda whole=whole: parse_request(json.dumps(whole).encode())) == "request.tampered"


def test_what_is_no_request_is_refused_in_words(invited: Path, tmp_path: Path) -> None:
    request, key, file = requested(invited)
    assert code_of(lambda: parse_request(b"hello")) == "request.not-json"
    assert code_of(lambda: parse_request(invited.read_bytes())) == "request.not-json"
    assert code_of(lambda: parse_request(b" " * 300_000)) == "request.too-large"
    assert code_of(lambda: read_request(tmp_path / "missing")) == "request.unreadable"
    # free text behind the key, which people would be shown
    chatty = {**request.model_dump(mode="json"), "public_key": request.public_key + " please"}
    signature = key.sign(canonical("join-request", chatty), ec.ECDSA(hashes.SHA384())).hex()
    told = {"format": "fedseg-join-request-1", "join-request": chatty, "signature": signature}
    assert code_of(lambda: parse_request(json.dumps(told).encode())) == "request.tampered"
    newer = file.read_bytes().replace(b"join-request-1", b"join-request-2")
    assert code_of(lambda: parse_request(newer)) == "request.foreign-format"
    write_request(request.model_copy(update={"site": "../north"}), key, file)
    assert code_of(lambda: read_request(file)) == "request.invalid"


@pytest.mark.parametrize(
    ("given_host", "host", "address"),
    [
        ("Hospital.Example", "hospital.example", "hospital.example:9443"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7:9443"),
        ("2001:DB8:0::7", "2001:db8::7", "[2001:db8::7]:9443"),
        ("[::1]", "::1", "[::1]:9443"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example", "xn--mnchen-3ya.example:9443"),
    ],
)
def test_hosts_are_written_as_addresses(given_host: str, host: str, address: str) -> None:
    assert host_of(given_host) == host
    assert address_of(given_host, 9443) == address


@pytest.mark.parametrize(
    "wrong", ["", "*.example.org", "https://a.example", "a b", "a:9443", "300.1.1.1", "fe80::1%eth0", "münchen.example",
              "-a.example", "a..b", "[hospital]", "x" * 254, "a\n"]
)  # fmt: skip
def test_what_is_no_host_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="no host"):
        host_of(wrong)
