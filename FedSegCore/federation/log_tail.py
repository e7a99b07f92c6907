"""Reading what a child has written to its log since last time, and JSON lines of a growing file."""

import json
from pathlib import Path
from typing import Any


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
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found
