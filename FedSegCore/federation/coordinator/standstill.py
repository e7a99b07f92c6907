"""SuperLink that stood still: its computer slept, was saved or moved as a virtual machine, or its disk was full.

Flower takes a run for dead whose server app has not told for a minute that it lives. Where SuperLink itself was not
there to be told, or could not write it down, that says nothing: the server app was well, and its run was lost.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from FedSegCore.federation.flower_version import require_flower

GAP_S = 20.0
"""SuperExec asks every two seconds: a SuperLink that was asked nothing for so long stood still, or has just begun."""

_STATE = "flwr.supercore.corestate.sql_corestate"
_NEEDED = {
    _STATE: (
        *("SqlCoreState", "TaskModel", "update", "now", "timedelta"),
        *("HEARTBEAT_PATIENCE", "HEARTBEAT_DEFAULT_INTERVAL"),
    )
}
_METHODS = ("get_task_by_token", "acknowledge_task_heartbeat", "_cleanup_expired_task_tokens")
"""What in Flower's state looks at how long a task has been silent."""


class Standstill:
    """Gives every task the time to tell that it lives, once this process has stood still.

    Args:
        prolong: does so for the tasks of a state.
        clock: seconds since the epoch, which goes on while a computer sleeps.
    """

    def __init__(self, prolong: Callable[[Any], None], clock: Callable[[], float] = time.time) -> None:
        self._prolong = prolong
        self._clock = clock
        self._last = float("-inf")
        self._lock = threading.RLock()

    def in_trouble(self) -> None:
        """Note that the state could not be used: what tasks told meanwhile is lost, as if nobody had been there."""
        with self._lock:
            self._last = float("-inf")

    def look(self, state: Any) -> None:
        """Look how long it is since the last call; whoever calls meanwhile waits.

        What ``prolong`` raises is raised on: an answer of 5xx is tried again, one that the task is unknown is not.
        """
        with self._lock:
            now = self._clock()
            if now - self._last > GAP_S:
                self._prolong(state)
            self._last = now


def outlive_standstills(clock: Callable[[], float] = time.time) -> None:
    """Let Flower's state, in this process, look for standstills before it takes a task for dead.

    Args:
        clock: as ``Standstill``'s.
    """
    (module,) = require_flower(_NEEDED)
    state = module.SqlCoreState
    standstill = Standstill(lambda one: _prolong(module, one), clock)
    for name in _METHODS:
        setattr(state, name, _after(standstill, getattr(state, name)))


def _after(standstill: Standstill, method: Callable[..., Any]) -> Callable[..., Any]:
    def looked(self: Any, *args: Any, **kwargs: Any) -> Any:
        standstill.look(self)
        try:
            return method(self, *args, **kwargs)
        except Exception:
            standstill.in_trouble()
            raise

    return looked


def _prolong(module: Any, state: Any) -> None:
    """Give every task that has not ended as long as after a heartbeat."""
    task = module.TaskModel
    patience = module.timedelta(seconds=module.HEARTBEAT_PATIENCE * module.HEARTBEAT_DEFAULT_INTERVAL)
    with state.session() as session:
        session.execute(
            module.update(task)
            .where(task.active_until.is_not(None), task.finished_at.is_(None))
            .values(active_until=module.now() + patience)
        )
