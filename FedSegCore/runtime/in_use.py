"""Which folders of a runtime are in use: every process started from one keeps a file of it open until its end.

On Windows an open file cannot be deleted; elsewhere the process holds a shared lock on it. Either vanishes with the
process, however that ends.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

IN_USE = "in-use"
"""Name of the file."""

_LOOK_S = 0.05
_held: list[IO[bytes]] = []


def hold(*folders: Path) -> None:
    """Keep these folders from being deleted until this process ends; where no file can be made, they are not kept."""
    for folder in folders:
        file = folder / IN_USE
        with suppress(OSError):
            if not file.exists():  # made by an installer that did not know it yet
                file.touch()
            _held.append(opened := file.open("rb"))
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(opened.fileno(), fcntl.LOCK_SH)


def hold_own_runtime() -> None:
    """Hold the core that this file is in, and the packages beside it that are on the path, if it was installed."""
    core = Path(__file__).resolve().parents[2]
    if core.name.startswith("core-"):
        entries = [Path(entry).resolve() for entry in sys.path]
        hold(core, *(path for path in entries if path.parent == core.parent and path.name.startswith("packages-")))


def is_held(folder: Path, patience_s: float = 0.0) -> bool:
    """Return whether a process holds ``folder``, and goes on doing so for ``patience_s``."""
    end = time.monotonic() + patience_s
    while _is_held_now(folder / IN_USE):
        if time.monotonic() >= end:
            return True
        time.sleep(_LOOK_S)
    return False


def _is_held_now(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        if sys.platform == "win32":
            file.unlink()
        else:
            import fcntl

            with file.open("r+b") as opened:  # a network file system locks for writing only what is open for it
                fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
