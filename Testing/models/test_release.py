"""Releases: what is published can be read back, and nothing that was touched since is used."""

import hashlib
import json
import os
import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from safetensors.numpy import load_file

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import sha256_of
from FedSegCore.models import release as release_module
from FedSegCore.models.release import choose_release, list_releases, open_release, publish_release
from FedSegCore.models.signing import public_key_of, public_key_to_pem
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING

LIVER = Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101))


def card_fields(name: str = "demo-CT", modality: str = "CT", **changes: object) -> dict[str, object]:
    return {
        "name": name,
        "modalities": {modality: DEFAULT_PREPROCESSING[modality]},
        "contract": LabelContract(labels=(LIVER,)),
        "network": NetworkConfig(out_channels=2),
        "patch_size": (32, 64, 64),
        "federation": "demo",
        "rule": "flames",
        "rounds": 3,
        **changes,
    }


def make_weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 2, 4)).astype(np.float32)
    # A transposed (not contiguous) array and a scalar are what naive writers get wrong.
    return {"a.kernel": kernel.transpose(2, 0, 1), "a.count": np.array(7, np.int64), "b.bias": np.zeros(5, np.float16)}


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def release(tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    return publish_release(tmp_path / "releases", card_fields(), make_weights(), key)


def code_of(path: Path, trusted: set[bytes] | None = None) -> str:
    with pytest.raises(BadInputError) as caught:
        open_release(path, trusted).weights()
    assert caught.value.remedy
    assert str(path.parent) not in str(caught.value)
    return caught.value.code


def sign_again(release: Path, card: bytes, key: Ed25519PrivateKey) -> None:
    (release / "card.json").write_bytes(card)
    (release / "card.json.sig").write_bytes(key.sign(card))
    (release / "coordinator.pub").write_bytes(public_key_to_pem(public_key_of(key)))


def with_weights(release: Path, data: bytes, key: Ed25519PrivateKey) -> None:
    (release / "weights.safetensors").write_bytes(data)
    card = json.loads((release / "card.json").read_bytes())
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    sign_again(release, json.dumps(card).encode(), key)


def test_what_is_published_is_read_back(release: Path, key: Ed25519PrivateKey) -> None:
    opened = open_release(release)
    assert opened.id == release.name == "demo-CT-v1"
    assert opened.card.contract.names == ("liver",)
    assert opened.card.created.tzinfo is not None
    assert opened.card.software["numpy"] == np.__version__
    weights = opened.weights()
    for name, array in make_weights().items():
        assert weights[name].dtype == array.dtype
        np.testing.assert_array_equal(weights[name], array)
        assert weights[name].flags.writeable


def test_the_files_are_what_the_format_says(release: Path, key: Ed25519PrivateKey) -> None:
    assert sorted(p.name for p in release.iterdir()) == [
        "card.json", "card.json.sig", "coordinator.pub", "weights.safetensors"
    ]  # fmt: skip
    card = (release / "card.json").read_bytes()
    public = load_pem_public_key((release / "coordinator.pub").read_bytes())
    public.verify((release / "card.json.sig").read_bytes(), card)
    weights = (release / "weights.safetensors").read_bytes()
    assert json.loads(card)["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert set(load_file(release / "weights.safetensors")) == set(make_weights())


def test_versions_go_up_and_a_broken_version_is_not_used_again(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    names = [publish_release(tmp_path, card_fields(), make_weights(n), key).name for n in range(11)]
    assert names[-1] == "demo-CT-v11"
    (tmp_path / "demo-CT-v11" / "card.json").unlink()
    assert publish_release(tmp_path, card_fields(), make_weights(), key).name == "demo-CT-v12"
    assert publish_release(tmp_path, card_fields("other"), make_weights(), key).name == "other-v1"


def test_the_list_is_newest_first_and_reports_what_it_leaves_out(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    for _ in range(10):
        publish_release(tmp_path, card_fields(created=datetime(2026, 1, 1, tzinfo=UTC)), make_weights(), key)
    publish_release(tmp_path, card_fields("demo-MR", "MR"), make_weights(), key)
    later = card_fields("new-CT", created=datetime(2026, 2, 1, tzinfo=UTC))
    publish_release(tmp_path, later, make_weights(), key)
    (tmp_path / "demo-CT-v4" / "weights.safetensors").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("people put things in folders")
    broken: dict[str, BadInputError] = {}
    found = [r.id for r in list_releases(tmp_path, "CT", report=broken.__setitem__)]
    assert found == ["new-CT-v1", *(f"demo-CT-v{n}" for n in (10, 9, 8, 7, 6, 5, 3, 2, 1))]
    assert {name: e.code for name, e in broken.items()} == {"demo-CT-v4": "release.weights-changed"}
    assert [r.id for r in list_releases(tmp_path, "MR")] == ["demo-MR-v1"]
    assert list_releases(tmp_path / "absent") == []


def test_a_person_chooses_by_modality_name_or_id(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    for name, modality in (("demo-CT", "CT"), ("demo-CT", "CT"), ("demo-MR", "MR")):
        publish_release(tmp_path, card_fields(name, modality), make_weights(), key)
    assert choose_release(tmp_path, "CT").id == "demo-CT-v2"
    assert choose_release(tmp_path, "MR", "demo-MR").id == "demo-MR-v1"
    assert choose_release(tmp_path, "CT", "demo-CT-v1").id == "demo-CT-v1"
    for modality, name, code in (
        ("US", None, "release.none"),
        ("CT", "absent", "release.none"),
        ("CT", "demo-MR", "release.wrong-modality"),
    ):
        with pytest.raises(BadInputError) as caught:
            choose_release(tmp_path, modality, name)
        assert caught.value.code == code
    (tmp_path / "demo-CT-v2" / "card.json.sig").unlink()
    with pytest.raises(BadInputError) as caught:
        choose_release(tmp_path, "CT", "demo-CT-v2")
    assert caught.value.code == "release.file-unusable"
    assert choose_release(tmp_path, "CT").id == "demo-CT-v1"


def test_only_the_weights_of_the_release_that_is_chosen_are_read(
    tmp_path: Path, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [publish_release(tmp_path, card_fields(), make_weights(), key) for _ in range(3)]
    read: list[str] = []

    def watched(path: Path) -> str:
        read.append(path.parent.name)
        return sha256_of(path)

    monkeypatch.setattr(release_module, "sha256_of", watched)
    assert choose_release(tmp_path, "CT").id == "demo-CT-v3"
    assert choose_release(tmp_path, "CT", "demo-CT-v1", card_only=True).id == "demo-CT-v1"
    assert read == ["demo-CT-v3"]
    # the next one where the newest was changed; with its card alone nobody can use it
    (paths[2] / "weights.safetensors").write_bytes(b"changed")
    assert choose_release(tmp_path, "CT").id == "demo-CT-v2"
    with pytest.raises(BadInputError, match=r"release\.weights-changed"):
        choose_release(tmp_path, "CT", card_only=True).weights()


def test_trust_is_only_claimed_for_keys_the_caller_gave(release: Path, key: Ed25519PrivateKey) -> None:
    other = Ed25519PrivateKey.generate()
    assert open_release(release).trusted is False
    assert open_release(release, {public_key_of(other), public_key_of(key)}).trusted is True
    assert code_of(release, {public_key_of(other)}) == "release.signer-unknown"
    assert code_of(release, set()) == "release.signer-unknown"
    sign_again(release, (release / "card.json").read_bytes(), other)
    assert code_of(release, {public_key_of(key)}) == "release.signer-unknown"


@pytest.mark.parametrize("name", ["card.json", "card.json.sig", "weights.safetensors"])
@pytest.mark.parametrize("where", [0, 40, -1])
def test_one_changed_byte_anywhere_is_noticed(release: Path, name: str, where: int) -> None:
    data = bytearray((release / name).read_bytes())
    data[where] ^= 1
    (release / name).write_bytes(data)
    assert (
        code_of(release)
        in {
            "card.json": {"release.signature-wrong", "release.card-invalid"},
            "card.json.sig": {"release.signature-wrong"},
            "weights.safetensors": {"release.weights-changed"},
        }[name]
    )


def test_weights_changed_after_opening_are_not_used(release: Path) -> None:
    opened = open_release(release)
    with (release / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadInputError, match=r"release\.weights-changed"):
        opened.weights()


def test_a_signature_of_one_release_does_not_serve_another(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    first, second = (publish_release(tmp_path, card_fields(), make_weights(n), key) for n in (1, 2))
    shutil.copy(first / "card.json.sig", second / "card.json.sig")
    assert code_of(second) == "release.signature-wrong"
    third = tmp_path / "demo-CT-v3"
    shutil.copytree(first, third)  # an old model dressed up as the newest
    assert code_of(third) == "release.misnamed"


@pytest.mark.skipif(os.name != "posix", reason="making links needs a privilege on Windows")
@pytest.mark.parametrize("name", ["card.json", "card.json.sig", "coordinator.pub", "weights.safetensors"])
def test_links_are_not_followed(release: Path, tmp_path: Path, name: str) -> None:
    (release / name).rename(tmp_path / "elsewhere")
    (release / name).symlink_to(tmp_path / "elsewhere")
    assert code_of(release) == "release.file-unusable"
    link = tmp_path / "demo-CT-v9"
    link.symlink_to(release)
    assert code_of(link) == "release.missing"


def test_large_missing_and_empty_files_are_refused_unread(release: Path) -> None:
    original = (release / "card.json").read_bytes()
    with (release / "card.json").open("wb") as file:
        file.truncate(2**40)  # sparse: reading it would not end well
    assert code_of(release) == "release.file-unusable"
    (release / "card.json").write_bytes(original)
    with (release / "weights.safetensors").open("wb") as file:
        file.truncate(2**43)
    assert code_of(release) == "release.file-unusable"
    (release / "weights.safetensors").write_bytes(b"")
    assert code_of(release) == "release.file-unusable"
    (release / "weights.safetensors").unlink()
    (release / "weights.safetensors").mkdir()
    assert code_of(release) == "release.file-unusable"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"format_version": 2}, "release.format-unknown"),
        ({"format_version": "1"}, "release.card-invalid"),
        ({"extra": 1}, "release.card-invalid"),
        ({"name": "../../etc"}, "release.card-invalid"),
        ({"version": 0}, "release.card-invalid"),
        ({"weights_sha256": "0" * 63}, "release.card-invalid"),
        ({"weights_sha256": "0" * 64}, "release.weights-changed"),
        ({"network": {"out_channels": 3}}, "release.card-invalid"),
        ({"network": {"out_channels": 2, "in_channels": 3}}, "release.card-invalid"),
        ({"modalities": {}}, "release.card-invalid"),
        ({"created": "2026-01-01T00:00:00"}, "release.card-invalid"),
        ({"scores": [{"label": "spleen", "mean": 1, "standard_deviation": 0, "cases": 1}]}, "release.card-invalid"),
        ({"name": "other"}, "release.misnamed"),
    ],
)
def test_a_well_signed_card_must_still_make_sense(
    release: Path, key: Ed25519PrivateKey, changes: dict[str, object], code: str
) -> None:
    card = json.loads((release / "card.json").read_bytes()) | changes
    sign_again(release, json.dumps(card).encode(), key)
    assert code_of(release) == code


@pytest.mark.parametrize("text", [b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format_version": true}'])
def test_a_card_that_is_no_card_is_refused(release: Path, key: Ed25519PrivateKey, text: bytes) -> None:
    sign_again(release, text, key)
    assert code_of(release) == "release.card-invalid"


@pytest.mark.parametrize("pem", [b"x", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_public_key_that_is_none_is_refused(release: Path, pem: bytes) -> None:
    (release / "coordinator.pub").write_bytes(pem)
    assert code_of(release) == "release.file-unusable"


def safetensors_file(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"not safetensors",
        struct.pack("<Q", 2**60) + b"{}",
        safetensors_file({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"\0" * 4),
        safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"\0" * 4),
        safetensors_file({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
        safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, struct.pack("<f", np.nan)),
        b"\x80\x04\x95pickle",
    ],
)
def test_malformed_weights_are_refused_even_when_signed(release: Path, key: Ed25519PrivateKey, data: bytes) -> None:
    with_weights(release, data, key)
    assert code_of(release) == "release.weights-malformed"


def test_nothing_is_written_when_publishing_fails(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    nan = {"a": np.array([1.0, np.inf], np.float32)}
    for fields, weights, code in (
        (card_fields(), nan, "release.weights-malformed"),
        (card_fields(), {}, "release.weights-malformed"),
        (card_fields(name="../up"), make_weights(), "release.card-invalid"),
        (card_fields(rounds=-1), make_weights(), "release.card-invalid"),
    ):
        with pytest.raises(BadInputError) as caught:
            publish_release(tmp_path / "releases", fields, weights, key)
        assert caught.value.code == code
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "releases"])
