"""Files that are either whole or not there: written beside the target, then renamed."""

import codecs
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_UNFINISHED = ".writing-"
_TRIES = 20
_PAUSE_S = 0.05


def is_disk_full(error: OSError) -> bool:
    """Return whether a file could not be written for want of room: on the disk, or of what the user may fill of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(target: Path, *, private: bool = False, lasting: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it when the block ends without an error.

    The temporary name keeps the target's suffixes so that writers that go by the extension work.

    Args:
        target: the file to write; its folder must exist.
        private: make the file readable by its owner only.
        lasting: after a power cut, too, it is this file and not the former one (its name is on the disk at the end).
    """
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
    try:
        beside = folder / target.name
        yield beside
        if private:
            beside.chmod(0o600)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        rename_patiently(beside, target)
        if lasting:
            # it is written; where a network drive cannot do more, nothing is undone for that
            with suppress(OSError):
                sync_folder(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename_patiently(beside: Path, target: Path) -> None:
    """Give ``beside`` the name ``target``, if need be a moment later; a file that has it already is replaced.

    Windows refuses it while somebody reads the old file, or a virus scanner a fresh one or one in a fresh folder.
    """
    for _ in range(_TRIES - 1):
        try:
            beside.replace(target)
        except PermissionError:
            time.sleep(_PAUSE_S)
        else:
            return
    beside.replace(target)


def read_whole(path: Path) -> bytes:
    """Return a file's bytes, if need be a moment later: Windows refuses them while ``whole_file`` replaces it."""
    for _ in range(_TRIES - 1):
        try:
            return path.read_bytes()
        except PermissionError:
            time.sleep(_PAUSE_S)
    return path.read_bytes()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that becomes it when the block ends without an error.

    Its files are on the disk before it has its name, so that a power cut leaves no empty ones behind.

    Raises:
        FileExistsError: ``target`` exists already.
    """
    if target.exists():
        raise FileExistsError(target.name)
    beside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
    try:
        beside.chmod(0o755)
        yield beside
        for path in beside.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        for folder in (path for path in (beside, *beside.rglob("*")) if path.is_dir()):
            sync_folder(folder)
        rename_patiently(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what ``whole_file`` and ``whole_folder`` left in ``folder`` when their process was killed.

    Nothing may be writing there.
    """
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def without_bom(content: bytes) -> bytes:
    """Return a UTF-8 text's bytes without the byte order mark that some editors of Windows put before it."""
    return content.removeprefix(codecs.BOM_UTF8)


def write_text(target: Path, text: str, *, private: bool = False, lasting: bool = False) -> None:
    """Write UTF-8 text so that ``target`` is never half written; the same bytes on every system. See ``whole_file``."""
    with whole_file(target, private=private, lasting=lasting) as beside:
        beside.touch(mode=0o600 if private else 0o644)
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, value: Any, *, private: bool = False) -> None:
    """Write ``value`` as indented JSON so that ``target`` is never half written."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
