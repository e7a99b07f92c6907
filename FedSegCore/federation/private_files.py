"""Folders and files that only their owner may read: keys, secrets, databases, cohorts."""

import os
import secrets
from pathlib import Path

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.files import whole_file


def private_folder(path: Path) -> Path:
    """Return ``path`` as an existing folder with mode 0700 (parents are made as the umask says).

    Raises:
        CannotDoHereError: it cannot be made, or is a link or a file (somebody else may stand behind it).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink():
            raise OSError("it is a link")
        path.chmod(0o700)
    except OSError as error:
        raise CannotDoHereError(
            "folder.not-private",
            f"The folder {path.name} cannot be made private: {error.strerror or error}.",
            "Choose a folder on a local disk that belongs to you.",
        ) from error
    return path


def write_private(target: Path, content: bytes) -> None:
    """Write ``content`` whole, readable by its owner only from the first byte on."""
    with whole_file(target) as beside:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def keep_secret(target: Path) -> str:
    """Return the secret in ``target``; a new one of 256 random bits is made where there is none."""
    if not target.exists():
        write_private(target, secrets.token_hex(32).encode("ascii"))
    return target.read_text(encoding="ascii")
