"""Work that the GUI thread does not wait for: on another thread, or on its own in many short steps."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Generator
from typing import TypeVar

from slicer.i18n import tr as _

from .Errors import UserError
from .WorkerProcess import CallLater

Result = TypeVar("Result")

PAUSE_MS = 5
"""How long events have their turn while a thread works, before the thread has its own again."""
WAIT_SECONDS = 0.01
"""How long a thread has its turn: it only runs while it is waited for, as Slicer's event loop keeps Python's lock."""
TURN_SECONDS = 0.02
"""How long short steps are taken one after the other before events get their turn again."""


def onThread(
    callLater: CallLater,
    work: Callable[[], Result],
    onDone: Callable[[Result], None],
    onError: Callable[[UserError], None],
    asUserError: Callable[[Exception], UserError],
) -> None:
    """Do ``work`` on a thread of its own, then call back on this one.

    Args:
        callLater: see CallLater.
        work: touches neither Qt nor the scene.
        onDone: gets what ``work`` returned.
        onError: gets the UserError that ``work`` raised, or
        asUserError: what it makes of an OSError, a ValueError or a lack of memory; called on this thread, as
            translation and Slicer's log use Qt. Of anything else it gets ``module.failed``.
    """
    results: list[Result] = []
    problems: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it is
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def look() -> None:
        thread.join(WAIT_SECONDS)
        if thread.is_alive():
            callLater(PAUSE_MS, look)
        elif problems:
            problem = problems[0]
            foreseen = isinstance(problem, OSError | ValueError | MemoryError)
            told = asUserError if foreseen else _unforeseen
            onError(problem if isinstance(problem, UserError) else told(problem))
        else:
            onDone(results[0])

    callLater(PAUSE_MS, look)


class Steps:
    """Takes the steps of a generator on the GUI thread, a few at a time, with all events in between.

    Args:
        callLater: see CallLater.
        steps: does something short before each ``yield``; closed where it is stopped before its end.
        onDone: called after the last step.
        onError: called with a UserError that a step raised; no further step is taken.
    """

    def __init__(
        self,
        callLater: CallLater,
        steps: Generator[None, None, None],
        onDone: Callable[[], None],
        onError: Callable[[UserError], None],
    ) -> None:
        self._callLater = callLater
        self._steps = steps
        self._onDone = onDone
        self._onError = onError
        self._stopped = False
        callLater(0, self._turn)

    def stop(self) -> None:
        """Take no further step and call nobody back."""
        self._stopped = True

    def _turn(self) -> None:
        start = time.perf_counter()
        try:
            while not self._stopped and time.perf_counter() - start < TURN_SECONDS:
                next(self._steps)
        except StopIteration:
            self._stopped = True
            self._onDone()
            return
        except UserError as error:
            self._fail(error)
            return
        except Exception as error:  # noqa: BLE001 - it is told and logged
            self._fail(_unforeseen(error))
            return
        if self._stopped:
            self._steps.close()
        else:
            self._callLater(0, self._turn)

    def _fail(self, error: UserError) -> None:
        self._stopped = True
        self._onError(error)


def _unforeseen(error: Exception) -> UserError:
    """Return what a user reads of a defect of ours; Slicer's log gets the place, without a text that may name files."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logging.error("FedSegSlicer: %s raised at\n%s", type(error).__name__, where)
    return UserError(
        "module.failed",
        _("Something went wrong that should not."),
        _("Try again; if it happens again, report it with Slicer's log."),
    )
