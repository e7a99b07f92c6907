"""Keys: private, of the right kind, recognisable by people."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from FedSegCore.common.errors import BadInputError
from FedSegCore.models.signing import (
    fingerprint_of,
    load_or_make_key,
    public_key_from_pem,
    public_key_of,
    public_key_to_pem,
    signature_is_good,
)


def test_a_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = load_or_make_key(tmp_path / "key.pem")
    assert public_key_of(load_or_make_key(tmp_path / "key.pem")) == public_key_of(first)
    assert [p.name for p in tmp_path.iterdir()] == ["key.pem"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="mode bits mean nothing on Windows")
def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    load_or_make_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(BadInputError, match=r"key\.readable-by-others"):
        load_or_make_key(tmp_path / "key.pem")


def test_other_kinds_of_key_are_refused(tmp_path: Path) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    wrong = {
        "ec.pem": elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "text.pem": b"hello",
        "empty.pem": b"",
    }
    for name, data in wrong.items():
        path = tmp_path / name
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(BadInputError, match=r"key\.unusable"):
            load_or_make_key(path)
    public = elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadInputError, match=r"key\.unusable"):
        public_key_from_pem(public)


def test_public_keys_survive_pem_and_have_a_readable_name() -> None:
    # RFC 8032, section 7.1, test 1.
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert public_key_of(Ed25519PrivateKey.from_private_bytes(secret)) == raw
    assert public_key_from_pem(public_key_to_pem(raw)) == raw
    assert signature_is_good(raw, signature, b"")
    assert not signature_is_good(raw, signature, b"x")
    assert not signature_is_good(raw, signature[:-1], b"")
    assert not signature_is_good(raw[:-1], signature, b"")
    assert fingerprint_of(raw).replace("-", "").lower() == hashlib.sha256(raw).hexdigest()[:20]
    assert fingerprint_of(raw).count("-") == 4
