"""A site's journal: append-only JSON lines, each holding the hash of the one before, in numbered private files.

``head.json`` names the last line, so that lines cut off at the end are missed too. Who owns the folder can forge the
whole chain anew; what the chain proves is that nobody changed, removed or slipped in anything by mistake or in passing.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.common.files import sync_folder, write_text
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.site.journal_entries import FIRST_PREVIOUS, Entry, Healed, Line, parse_line

_NAME = re.compile(r"journal-(\d{6})\.jsonl")
_RAW = re.compile(rb"[^\n]*\n|[^\n]+")
_MAX_FILE = 4 * 1024 * 1024
_LOCK_S = 30.0
_TIME = "%Y-%m-%dT%H:%M:%SZ"
Found = TypeVar("Found")
# Behind an unfinished line, so that it can never be read as a finished one.
_TORN = b"#\n"


@dataclass(frozen=True)
class Verification:
    """What checking a journal found.

    Attributes:
        entries: whole entries before the break, or all.
        whole: nothing is missing or changed.
        unfinished: the last entry was cut off by a crash; the next one will say so.
        file: file in which the chain breaks.
        line: line of that file, 1-based.
        reason: what is wrong there.
    """

    entries: int
    whole: bool
    unfinished: bool = False
    file: str = ""
    line: int = 0
    reason: str = ""


@dataclass(frozen=True)
class _End:
    file: Path
    last: Line | None
    garbage: bytes


class _BrokenError(Exception):
    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(reason)
        self.file, self.line, self.reason = file, line, reason


class Journal:
    """A journal in a folder; any number of processes may append.

    Args:
        folder: made, with mode 0700, at the first entry.
        max_file_bytes: a file that has reached this size is followed by the next.
        clock: the time of entries.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_file_bytes: int = _MAX_FILE,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._clock = clock

    def append(self, entry: Entry) -> None:
        """Write an entry; it is on the disk when this returns.

        Raises:
            CannotDoHereError: ``journal.unwritable``, ``journal.busy``.
            BadInputError: ``journal.broken``: its end was changed; nothing is added to a journal that lost its proof.
        """
        try:
            private_folder(self._folder)
            with FileLock(self._folder / "lock", timeout=_LOCK_S, mode=0o600):
                self._append(entry)
        except Timeout as error:
            raise CannotDoHereError(
                "journal.busy", "Another process holds the journal.", "End it and try again."
            ) from error
        except OSError as error:
            raise CannotDoHereError(
                "journal.unwritable", "The journal cannot be written.", "Make room on the disk, or look at its rights."
            ) from error

    def lines(self) -> Iterator[Line]:
        """Yield all lines, oldest first; raises BadInputError ``journal.broken`` where the chain breaks."""
        try:
            found = self._steady(lambda: list(self._walk()))
        except _BrokenError as error:
            raise _broken(f"{error.file} breaks at line {error.line}: {error.reason}") from error
        yield from (line for line in found if isinstance(line, Line))

    def changed(self) -> int:
        """Return when an entry was last added, nanoseconds since the epoch; 0 where there is none."""
        return self._head.stat().st_mtime_ns if self._head.exists() else 0

    def recent(self, since: datetime, now: datetime) -> list[Line]:
        """Return the good lines written since then, oldest first; files that were not written since are not opened.

        A line of the time after ``now``, written by a clock that was set ahead, is as old as the next that is not. The
        chain is not followed: what must be proved asks ``lines`` or ``verify``.
        """
        told, ahead = since.strftime(_TIME), now.strftime(_TIME)
        found: list[Line] = []
        for path in self._files():
            if path.stat().st_mtime >= since.timestamp() - 1.0:
                for raw in path.read_bytes().split(b"\n"):
                    line = parse_line(raw)
                    if line is None:
                        continue
                    if line.time >= told:
                        found.append(line)
                    while line.time < told and found and found[-1].time > ahead:
                        found.pop()
        return found

    def verify(self) -> Verification:
        """Check every byte of the journal; never raises for what is in it."""
        entries, unfinished = 0, False

        def check() -> None:
            nonlocal entries, unfinished
            entries, unfinished = 0, False
            for found in self._walk():
                if isinstance(found, Line):
                    entries += 1
                else:
                    unfinished = True

        try:
            self._steady(check)
        except _BrokenError as error:
            return Verification(entries, False, False, error.file, error.line, error.reason)
        except OSError:
            return Verification(entries, False, False, reason="it cannot be read")
        return Verification(entries, True, unfinished)

    def _steady(self, read: Callable[[], Found]) -> Found:
        """Read, and where that finds a break, once more while nobody writes: an entry may just have been added."""
        try:
            return read()
        except _BrokenError as error:
            found = error
        try:
            with FileLock(self._folder / "lock", timeout=_LOCK_S, mode=0o600):
                return read()
        except (OSError, Timeout):  # a copy on a disk that cannot be written, say
            raise found from None

    @property
    def _head(self) -> Path:
        return self._folder / "head.json"

    def _head_bytes(self) -> bytes:
        """Return what the head says; on Windows former versions wrote its end of line as two signs."""
        head = self._head.read_bytes() if self._head.exists() else b""
        return head.removesuffix(b"\r\n") + b"\n" if head.endswith(b"\r\n") else head

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _append(self, entry: Entry) -> None:
        end = self._end()
        self._require_head(end)
        last = end.last
        if end.garbage:
            completion = b"" if end.garbage.endswith(b"\n") else _TORN
            torn = end.garbage + completion
            healed = Healed(bytes=len(torn), sha256=hashlib.sha256(torn).hexdigest())
            last = self._add(end.file, last, healed, completion)
        file = end.file
        if file.exists() and file.stat().st_size >= self._max_file_bytes:
            file = _numbered(self._folder, _number(file) + 1)
        self._add(file, last, entry)

    def _add(self, file: Path, last: Line | None, entry: Entry, before: bytes = b"") -> Line:
        number, previous = (1, FIRST_PREVIOUS) if last is None else (last.number + 1, last.hash)
        line = Line.make(number, self._clock().strftime(_TIME), previous, entry)
        size = file.stat().st_size if file.exists() else 0
        try:
            _write(file, before + line.to_bytes() + b"\n")
            # lasting: after a power cut the head may lag by one line only
            write_text(self._head, _head_text(line.number, line.hash), private=True, lasting=True)
        except OSError:
            # the head may lag by one line only: a disk that is full for a while must not leave several without it
            if file.exists():
                os.truncate(file, size)
            raise
        return line

    def _end(self) -> _End:
        files = self._files()
        file = files[-1] if files else _numbered(self._folder, 1)
        garbage = b""
        for path in reversed(files):
            data = path.read_bytes()
            last, rest = _last_line(data)
            if path == file:
                garbage = rest
            elif rest:
                raise _broken("a file before the last ends with something else than an entry")
            if last is not None:
                return _End(file, last, garbage)
        return _End(file, None, garbage)

    def _require_head(self, end: _End) -> None:
        if self._head_bytes() not in _possible_heads(end.last):
            raise _broken("its end is not what was written last")

    def _walk(self) -> Iterator[Line | bytes]:
        """Yield lines, and unfinished bytes at the very end; raise _BrokenError where the chain breaks."""
        files = self._files()
        last: Line | None = None
        garbage, row = b"", 0
        for number, path in enumerate(files, 1):
            if garbage:
                raise _BrokenError(files[number - 2].name, row, "it is no entry")
            if _number(path) != number:
                raise _BrokenError(path.name, 1, "a file before it is missing")
            for row, raw in enumerate(_RAW.findall(path.read_bytes()), 1):
                line = parse_line(raw[:-1]) if raw.endswith(b"\n") else None
                if line is None:
                    garbage += raw
                    continue
                _check_link(path.name, row, line, last, garbage)
                garbage, last = b"", line
                yield line
        if self._head_bytes() not in _possible_heads(last):
            name = files[-1].name if files else self._head.name
            raise _BrokenError(name, row, "the end is not what was written last")
        if garbage:
            yield garbage


def _check_link(file: str, row: int, line: Line, last: Line | None, garbage: bytes) -> None:
    number, previous = (1, FIRST_PREVIOUS) if last is None else (last.number + 1, last.hash)
    if garbage:
        healed = line.entry
        if not isinstance(healed, Healed) or healed.sha256 != hashlib.sha256(garbage).hexdigest():
            raise _BrokenError(file, row - garbage.count(b"\n"), "it is no entry, or was changed")
        if healed.bytes != len(garbage):
            raise _BrokenError(file, row, "it tells of other unfinished bytes")
    if line.number != number or line.previous != previous:
        raise _BrokenError(file, row, "it does not follow the line before")


def _last_line(data: bytes) -> tuple[Line | None, bytes]:
    """Return the last good line of a file and what stands behind it."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        line = parse_line(data[start : end - 1])
        if line is not None:
            return line, data[end:]
        end = start
    return None, data


def _possible_heads(last: Line | None) -> tuple[bytes, ...]:
    """Return what ``head.json`` may hold: the last line, or the one before where a crash came between the two."""
    if last is None:
        return (b"",)
    before = b"" if last.number == 1 else _head_text(last.number - 1, last.previous).encode("ascii")
    return _head_text(last.number, last.hash).encode("ascii"), before


def _head_text(number: int, digest: str) -> str:
    return json.dumps({"hash": digest, "number": number}) + "\n"


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"journal-{number:06d}.jsonl"


def _write(file: Path, data: bytes) -> None:
    new = not file.exists()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(file.parent)


def _broken(what: str) -> BadInputError:
    return BadInputError(
        "journal.broken",
        f"The journal is not whole: {what}.",
        "Keep a copy of its folder for whoever must know, then move the folder away: a new journal begins.",
    )
