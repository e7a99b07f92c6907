"""Files that are either whole or not there: written beside the target, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(target: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it when the block ends without an error.

    The temporary name keeps the target's suffixes so that writers that go by the extension work.

    Args:
        target: the file to write; its folder must exist.
        private: make the file readable by its owner only.
    """
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        beside = folder / target.name
        yield beside
        if private:
            beside.chmod(0o600)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that becomes it when the block ends without an error.

    Raises:
        FileExistsError: ``target`` exists already.
    """
    if target.exists():
        raise FileExistsError(target.name)
    beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        beside.chmod(0o755)
        yield beside
        beside.replace(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_text(target: Path, text: str, *, private: bool = False) -> None:
    """Write UTF-8 text so that ``target`` is never half written."""
    with whole_file(target, private=private) as beside:
        beside.touch(mode=0o600 if private else 0o644)
        beside.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any, *, private: bool = False) -> None:
    """Write ``value`` as indented JSON so that ``target`` is never half written."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
