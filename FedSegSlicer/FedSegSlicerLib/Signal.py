"""Signals between plain Python objects (Qt signals defined in Python crash PythonQt)."""

from collections.abc import Callable


class Signal:
    """Calls every connected function, in the order in which they were connected.

    >>> finished = Signal()
    >>> finished.connect(print)
    >>> finished.emit("done")
    done
    """

    def __init__(self) -> None:
        self._functions: list[Callable[..., object]] = []

    def connect(self, function: Callable[..., object]) -> None:
        """Call ``function`` with whatever is emitted from now on."""
        self._functions.append(function)

    def disconnect(self, function: Callable[..., object]) -> None:
        """Stop calling ``function``; nothing happens if it is not connected."""
        self._functions = [known for known in self._functions if known != function]

    def emit(self, *args: object) -> None:
        """Call the connected functions; one that disconnects itself or another does not disturb the round."""
        for function in list(self._functions):
            function(*args)
