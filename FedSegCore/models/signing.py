"""Ed25519 keys and signatures of releases (RFC 8032)."""

import hashlib
import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_file

MAX_KEY_BYTES = 4096


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key at ``path`` (PEM, PKCS#8), made there first, readable by its owner only, if there is none.

    Raises:
        BadInputError: ``key.unusable`` (not an Ed25519 key) or ``key.readable-by-others``.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        with whole_file(path, private=True) as beside:
            beside.touch(mode=0o600)
            beside.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return key
    # Windows keeps permissions elsewhere: its mode bits say nothing about other people.
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BadInputError(
            "key.readable-by-others",
            f"The signing key {path.name} can be read by other users of this machine.",
            f"If nobody can have copied it, run: chmod 600 {path.name}; otherwise delete it and make a new one.",
        )
    try:
        loaded = load_pem_private_key(path.read_bytes()[:MAX_KEY_BYTES], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path.name) from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise _unusable(path.name)
    return loaded


def public_key_of(key: Ed25519PrivateKey) -> bytes:
    """Return the raw 32 bytes of the public key that belongs to ``key``."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_key_to_pem(public_key: bytes) -> bytes:
    """Return a raw 32-byte public key as PEM (SubjectPublicKeyInfo), the form that is written to files."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_key_from_pem(pem: bytes) -> bytes:
    """Return the raw 32 bytes of an Ed25519 public key written as PEM.

    Raises:
        BadInputError: ``key.unusable``.
    """
    try:
        loaded = load_pem_public_key(pem[:MAX_KEY_BYTES])
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable("public key") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise _unusable("public key")
    return loaded.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint_of(public_key: bytes) -> str:
    """Return a short name of a public key that people can compare: 80 bits of its SHA-256 as ``ABCD-0123-…``."""
    digits = hashlib.sha256(public_key).hexdigest()[:20].upper()
    return "-".join(digits[n : n + 4] for n in range(0, 20, 4))


def same_fingerprint(told: str, fingerprint: str) -> bool:
    """Return whether ``told`` is ``fingerprint`` as people type what they hear: spaces, hyphens, case do not matter."""
    return re.sub(r"[\s-]", "", told).upper() == fingerprint.replace("-", "")


def signature_is_good(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether ``signature`` (64 bytes) over ``message`` was made by the owner of ``public_key`` (raw)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _unusable(what: str) -> BadInputError:
    return BadInputError(
        "key.unusable", f"The key ({what}) is not an Ed25519 key in PEM form.", "Give another file, or make a new key."
    )
