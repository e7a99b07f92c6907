"""Answers that come after their round: fetched all the same, since a server keeps what nobody fetches."""

from collections.abc import Callable, Iterable

from flwr.serverapp import Grid

LATEST_S = 120.0
"""No answer comes later than this after its round: the order's time, with a minute for the way, is over."""

_LOOK_S = 10.0


class LateAnswers:
    """Fetches what came too late, so that a site that is late again and again does not fill the coordinator's disk.

    SuperLink deletes an answer when it is fetched, else only at the end of the run; every one is as large as a model.

    Args:
        grid: Flower's grid.
        clock: seconds, monotonic.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float]) -> None:
        self._grid = grid
        self._clock = clock
        self._expected: dict[str, float] = {}
        self._next_look = 0.0

    def expect(self, message_ids: Iterable[str]) -> None:
        """Note orders that nobody waits for any more."""
        until = self._clock() + LATEST_S
        self._expected |= dict.fromkeys(message_ids, until)

    def fetch(self) -> None:
        """Fetch and forget what has come, at most every ten seconds, one answer at a time."""
        now = self._clock()
        if not self._expected or now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        for message_id, until in list(self._expected.items()):
            if list(self._grid.pull_messages([message_id])) or now > until:
                del self._expected[message_id]
