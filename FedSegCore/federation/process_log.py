"""What our own code says in a long-lived process: to standard error for people, to a file of JSON lines for programs.

A JSON line never holds what was put into a message at run time but numbers: paths, names and other people's words stay
out whatever an exception says. ``{"time", "level", "event", "message", "code"?, "values"?, "error"?}``: ``event`` is
what happened or where it was said, ``message`` the words as they stand in the source, ``code`` the stable code of a
FedSegError, ``values`` numbers, ``error`` the kind of another exception.
"""

import copy
import json
import logging
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any

from FedSegCore.common.errors import FedSegError

LARGEST_BYTES = 5 * 1024 * 1024
"""A file that has grown to this is set aside as ``.1``, and so on."""

KEPT_FILES = 3

OURS = "FedSegCore"


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name.removeprefix(f"{OURS}.")),
            "message": str(record.msg) if isinstance(record.msg, str) else type(record.msg).__name__,
        }
        error = record.exc_info[1] if record.exc_info else None
        known = [said for said in (*arguments, error) if isinstance(said, FedSegError)]
        code = known[0].code if known else getattr(record, "code", "")
        values = [said for said in arguments if isinstance(said, int | float)]
        if code:
            line["code"] = code
        if values:
            line["values"] = values
        if error is not None and not known:
            line["error"] = type(error).__name__
        return json.dumps(line, ensure_ascii=True)


class NamelessFormatter(logging.Formatter):
    """Writes of an exception where it came from and what kind it is, never its text, which may hold paths and names."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        nameless = copy.copy(record)
        nameless.exc_text = None  # what another formatter made of the exception is remembered there, text and all
        return super().format(nameless)

    def formatException(  # noqa: N802 - logging's own name
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return the places in the source and the exception's type."""
        kind, _, trace = ei
        places = "".join(traceback.format_tb(trace)) if trace is not None else ""
        return f"{places}{kind.__name__ if kind else ''} (its text is kept out of the log)"


def log_to_stderr() -> None:
    """Send our own messages, from INFO on, to standard error, which is the child's log file."""
    handler = logging.StreamHandler()
    handler.setFormatter(NamelessFormatter("%(asctime)s %(levelname)s %(message)s"))
    _ours().addHandler(handler)


def log_to_json(folder: Path, role: str) -> None:
    """Send our own messages, from INFO on, to ``<folder>/<role>.jsonl`` too; one process writes under one role.

    Where that file cannot be written, the process does its work without it.

    Args:
        folder: the logs of the coordinator or the site.
        role: ``"coordinator"``, ``"trainer"`` …
    """
    path = folder / f"{role}.jsonl"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        handler = RotatingFileHandler(path, maxBytes=LARGEST_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    except OSError:
        _ours().warning("the log %s cannot be written", path.name)
        return
    handler.setFormatter(JsonLines())
    _ours().addHandler(handler)


def _ours() -> logging.Logger:
    ours = logging.getLogger(OURS)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    return ours
