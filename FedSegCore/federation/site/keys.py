"""A site's identity: an EC P-384 key in OpenSSH format, the only kind Flower takes."""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import write_text
from FedSegCore.federation.private_files import write_private
from FedSegCore.models.signing import fingerprint_of


def make_site_key(private: Path, public: Path) -> None:
    """Make a new key: ``private`` (mode 0600, never leaves the site) and ``public`` (given to the coordinator)."""
    key = ec.generate_private_key(ec.SECP384R1())
    openssh = serialization.PrivateFormat.OpenSSH
    write_private(private, key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()))
    write_text(public, public_key_line(key.public_key()) + "\n")


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a site's public key; raises BadInputError ``site.key`` for anything but an OpenSSH P-384 public key."""
    try:
        return load_public_key(path.read_bytes(), path.name)
    except OSError as error:
        raise _refusal(path.name) from error


def load_public_key(line: bytes, name: str = "This") -> ec.EllipticCurvePublicKey:
    """Return the key in an OpenSSH line; raises BadInputError ``site.key`` for anything but a P-384 public key."""
    try:
        key = serialization.load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refusal(name) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refusal(name)
    return key


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a site's own key; raises BadInputError ``site.private-key`` for anything but an OpenSSH P-384 key."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_private_key() from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _no_private_key()
    return key


def public_key_line(key: ec.EllipticCurvePublicKey) -> str:
    """Return the key as one OpenSSH line without comment and line end."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def short_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return 80 bits of the SHA-256 that ``public_key_fingerprint`` tells, as ``ABCD-0123-…``, to be read out."""
    return fingerprint_of(base64.b64decode(public_key_line(key).split()[1]))


def public_key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return ``SHA256:...`` as ``ssh-keygen -l`` prints it; ``short_fingerprint`` is easier to read out."""
    digest = hashlib.sha256(base64.b64decode(public_key_line(key).split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _refusal(name: str) -> BadInputError:
    return BadInputError(
        "site.key", f"{name} is not a site's public key.", "Give the key.pub that the site made at joining."
    )


def _no_private_key() -> BadInputError:
    return BadInputError("site.private-key", "The site's key cannot be used.", "Restore the file key in its folder.")
