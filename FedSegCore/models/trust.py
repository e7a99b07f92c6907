"""Whose releases are used here: public keys that a person or a site has decided to trust."""

from pathlib import Path

from FedSegCore.common.errors import BadInputError
from FedSegCore.models.signing import MAX_KEY_BYTES, public_key_from_pem


def read_public_key_file(path: Path) -> bytes:
    """Return the raw 32 bytes of the release key in a file such as a release's ``coordinator.pub`` (PEM).

    Raises:
        BadInputError: ``key.unreadable``, ``key.unusable``.
    """
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise BadInputError(
            "key.unreadable", f"The key file {path.name} cannot be read.", "Give the coordinator's public release key."
        ) from error
    return public_key_from_pem(pem)
