"""Reading what a child has written to its log since last time, and JSON lines of a growing file."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

LARGEST_LOG = 8 * 1024**2
"""A child's log that has grown beyond this is set aside."""


def cut_log(path: Path, largest: int = LARGEST_LOG) -> None:
    """Set a log aside as ``<name>.1`` if it is larger, and go on in the empty file: its writer keeps it open.

    Without this, whoever sends enough messages fills the disk. Where it cannot be done, the log grows on.
    """
    try:
        if path.stat().st_size > largest:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            path.with_name(f"{path.name}.1").chmod(0o600)
            os.truncate(path, 0)
    except OSError:
        return


class LogTail:
    """The new whole lines of a growing text file.

    Args:
        path: the file; it need not exist yet.
        from_end: skip what is in it already.
    """

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def lines(self) -> list[str]:
        """Return the lines completed since the last call, without line ends."""
        try:
            with self._path.open("rb") as file:
                if self._path.stat().st_size < self._offset:
                    # it was cut
                    self._offset = 0
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()

    def objects(self) -> list[dict[str, Any]]:
        """Return the JSON objects of the new lines; lines that are none are left out."""
        found = []
        for line in self.lines():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                found.append(value)
        return found
