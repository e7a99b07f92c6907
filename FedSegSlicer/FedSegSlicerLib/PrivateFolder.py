"""A private temporary folder for images; what a crash leaves of one, the next one removes."""

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

PREFIX = "FedSegSlicer-"
IN_USE = "in-use"
"""The file in the folder that its owner keeps locked; the system gives it up with the process, however that ends."""

YOUNG_SECONDS = 60.0
"""Folders younger than this are left alone: their owner may not have locked them yet."""


class PrivateFolder:
    """A folder that only this user can read, in the system's place for temporary files.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        removeAbandoned()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._inUse = (self.path / IN_USE).open("wb")
        _lock(self._inUse)

    def remove(self) -> None:
        """Delete the folder with what is in it, as far as nobody reads it on Windows."""
        self._inUse.close()
        shutil.rmtree(self.path, ignore_errors=True)


def removeAbandoned() -> None:
    """Delete the folders of processes that ended without deleting them."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            if _isAbandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody else deletes it just now, or it is not ours to read


def _isAbandoned(folder: Path) -> bool:
    found = folder.lstat()
    isOurs = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not (isOurs and stat.S_ISDIR(found.st_mode)) or time.time() - found.st_mtime < YOUNG_SECONDS:
        return False
    if not (folder / IN_USE).exists():
        return True
    with (folder / IN_USE).open("r+b") as file:
        return _lock(file)


def _lock(file: BinaryIO) -> bool:
    """Lock the file for as long as it is open; return False where another process has done so.

    As FedSegCore's runtime.layout does, which Slicer's Python does not import.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
