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


def make_site_key(private: Path, public: Path) -> None:
    """Make a new key: ``private`` (mode 0600, never leaves the site) and ``public`` (given to the coordinator)."""
    key = ec.generate_private_key(ec.SECP384R1())
    openssh = serialization.PrivateFormat.OpenSSH
    write_private(private, key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()))
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_text(public, line.decode("ascii") + "\n")


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a site's public key; raises BadInputError ``site.key`` for anything but an OpenSSH P-384 public key."""
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _refusal(path) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refusal(path)
    return key


def public_key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return ``SHA256:...`` as ``ssh-keygen -l`` prints it, short enough to read out over the phone."""
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _refusal(path: Path) -> BadInputError:
    return BadInputError(
        "site.key", f"{path.name} is not a site's public key.", "Give the key.pub that the site made at joining."
    )
