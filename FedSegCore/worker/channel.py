"""Standard input and output as a channel of lines that nothing else can write into."""

import os
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, Self

from FedSegCore.worker.messages import Message, encode

LONGEST_LINE = 1 << 20
"""Bytes; voxels travel as files, so a longer message is a mistake."""


class LineChannel:
    """Lines of JSON in, lines of JSON out; writing is safe from any thread.

    Args:
        source: binary stream to read from.
        target: binary stream to write to.
    """

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target
        self._lock = threading.Lock()

    @classmethod
    def over_standard_streams(cls) -> Self:
        """Take standard input and output for the channel.

        From then on whatever a library prints (from Python or from C) goes to standard error.
        """
        sys.stdout.flush()
        target = os.fdopen(os.dup(1), "wb")
        source = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path
            os.dup2(nothing.fileno(), 0)
        sys.stdout = sys.stderr
        return cls(source, target)

    def lines(self) -> Iterator[bytes]:
        """Yield lines without their end until the other side closes; an over-long line is yielded cut short."""
        while line := self._source.readline(LONGEST_LINE):
            if not line.endswith(b"\n"):
                self._skip_rest_of_line()
            if line.strip():
                yield line.rstrip(b"\r\n")

    def _skip_rest_of_line(self) -> None:
        while (rest := self._source.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            continue

    def send(self, message: Message) -> None:
        """Write one message; does nothing once the other side has gone."""
        line = encode(message)
        with self._lock:
            try:
                self._target.write(line)
                self._target.flush()
            except (OSError, ValueError):
                # The reader sees the end of its input and ends the process; there is nobody left to tell.
                return
