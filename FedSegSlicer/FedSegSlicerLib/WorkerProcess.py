"""The worker as a child process, behind a protocol that knows neither Qt nor Slicer."""

from collections.abc import Callable
from typing import Protocol

from .Signal import Signal

CallLater = Callable[[int, Callable[[], None]], object]
"""``callLater(milliseconds, function)``, as ``QtTimer.callLater``."""


class WorkerProcessProtocol(Protocol):
    """A child process that talks in lines.

    Attributes:
        lineReceived: emitted with each line of its standard output (bytes, without the line end).
        logReceived: emitted with text of its standard error.
        finished: emitted with a reason in words once it has ended, however it ended; never inside ``start``.
    """

    lineReceived: Signal
    logReceived: Signal
    finished: Signal

    def start(self, arguments: list[str], environment: dict[str, str]) -> None:
        """Start ``arguments[0]`` with the rest; failing to start is told through ``finished``."""

    def write(self, line: bytes) -> None:
        """Write to its standard input without waiting."""

    def stop(self) -> None:
        """End it at once; ``finished`` follows."""

    def close(self) -> None:
        """End it and wait for its end, which takes milliseconds; nothing is told any more."""

    def isRunning(self) -> bool:
        """Return whether it was started and has not ended."""


class LineSplitter:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.rstrip(b"\r") for line in lines]
