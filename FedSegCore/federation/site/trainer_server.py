"""Answers the calls of the site's trainer: one round at a time, every connection in a thread of its own."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Any

from FedSegCore.common.errors import CancelledError, CannotDoHereError, FedSegError
from FedSegCore.common.files import write_json
from FedSegCore.common.progress import Progress
from FedSegCore.federation.site.cohort_trainer import CohortTrainer
from FedSegCore.federation.site.control import halt_now
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.gated_trainer import GatedTrainer
from FedSegCore.federation.site.policy_watch import PolicyWatch
from FedSegCore.federation.site.trainer_greeting import welcome
from FedSegCore.federation.site.trainer_wire import Frame, error_frame, read_order, receive, result_frame, send

_PROGRESS_EVERY_S = 0.5
_FORMER_ROUND_S = 60.0
_WATCHDOG_GRACE_S = 60.0
_OVERRUN_EXIT = 75
_GREETING_S = 10.0
_ACCEPT_AGAIN_S = 0.2
_ACCEPTS_FAILED = 50

_log = logging.getLogger(__name__)


class TrainerServer:
    """Answers ``describe``, ``train_round`` and ``stop``; one round at a time.

    Args:
        folder: the site.
        trainer: what trains; it is reached through the site's gate only.
    """

    def __init__(self, folder: SiteFolder, trainer: CohortTrainer) -> None:
        self._folder = folder
        self._images = trainer
        self._trainer = GatedTrainer(folder, trainer)
        self._training = threading.Lock()
        self._cancelled = threading.Event()
        self._policy = PolicyWatch(folder)
        self._round = (0, 0)
        self._problem: FedSegError | None = None
        self._of_query = False  # the problem kept a query from being answered, not a round

    def serve(self, listener: Listener, key: bytes) -> None:
        """Answer connections of those who know ``key`` until the process ends.

        Args:
            listener: without a key of its own: who calls and says nothing must not keep others waiting.
            key: what both sides know.

        Raises:
            OSError: no connection could be accepted 50 times in a row.
        """
        self._report_idle()
        failed = 0
        while True:
            try:
                connection = listener.accept()
            except OSError:
                failed += 1
                if failed > _ACCEPTS_FAILED:
                    raise
                # gone before it was accepted, or too many open files for a moment
                _log.warning("a connection could not be accepted")
                time.sleep(_ACCEPT_AGAIN_S)
                continue
            failed = 0
            threading.Thread(target=self._serve_one, args=(connection, key), daemon=True).start()

    def _serve_one(self, connection: Connection, key: bytes) -> None:
        with connection:
            try:
                welcome(connection, key, _GREETING_S)
            except (AuthenticationError, EOFError, OSError, ValueError):
                _log.warning("a connection without the right key was refused")
                return
            try:
                send(connection, self._answer(receive(connection), connection))
            except (EOFError, OSError):
                _log.warning("the other side went away")
            except ValueError:
                _log.warning("a message could not be read or written")

    def _answer(self, frame: Frame, connection: Connection) -> Frame:
        try:
            match frame.header.get("method"):
                case "describe":
                    self._require_taking_part()
                    return self._describe()
                case "train_round":
                    self._require_taking_part()
                    return self._train_round(frame, connection)
                case _:
                    raise ValueError("no such method")
        except FedSegError as error:
            _log.warning("%s", error)
            return self._failed(frame, error)
        except MemoryError:
            return self._failed(frame, CannotDoHereError("trainer.memory", "Memory ran out.", "Close other programs."))
        except Exception:  # noqa: BLE001
            # Whatever goes wrong in training ends this round only, and its text stays in this log.
            _log.exception("the request failed")
            failed = CannotDoHereError("trainer.failed", "Training failed.", "Read logs/trainer.log.")
            return self._failed(frame, failed)

    def _require_taking_part(self) -> None:
        self._policy.look()
        halt = halt_now(self._folder)
        if halt is not None:
            raise halt.error()

    def _failed(self, frame: Frame, error: FedSegError) -> Frame:
        if not isinstance(error, CancelledError) and error.code not in ("site.paused", "site.left", "trainer.busy"):
            self._problem, self._of_query = error, frame.header.get("method") == "describe"
        self._report_idle()
        return error_frame(error)

    def _describe(self) -> Frame:
        description = self._trainer.describe()
        if self._of_query:
            self._problem, self._of_query = None, False
            self._report_idle()
        return Frame({"description": asdict(description)})

    def _train_round(self, frame: Frame, connection: Connection) -> Frame:
        task, weights, request = read_order(frame)
        if not self._training.acquire(timeout=_FORMER_ROUND_S):
            raise CannotDoHereError("trainer.busy", "Another round is still being trained.", "Try again later.")
        try:
            self._cancelled.clear()
            self._round = (request.round_number, request.rounds)
            progress = self._progress(f"round {request.round_number} of {request.rounds}", connection)
            with _watchdog(self._folder.settings().round_limit_s + _WATCHDOG_GRACE_S):
                result = self._trainer.train_round(task, weights, request, progress)
            self._problem = None
            return result_frame(result)
        except CancelledError:
            halt = halt_now(self._folder)
            raise (CancelledError() if halt is None else halt.error()) from None
        finally:
            self._training.release()
            self._report_idle()

    def _progress(self, title: str, connection: Connection) -> Progress:
        last = 0.0

        def tell(fraction: float, stage: str) -> None:
            nonlocal last
            if _gone(connection):
                self._cancelled.set()
            if time.monotonic() - last > _PROGRESS_EVERY_S and halt_now(self._folder) is not None:
                self._cancelled.set()
            if time.monotonic() - last > _PROGRESS_EVERY_S:
                last = time.monotonic()
                self._report("training", fraction, f"{title}: {stage}")

        return Progress(tell, self._cancelled)

    def _report(self, state: str, fraction: float, stage: str) -> None:
        number, rounds = self._round
        told: dict[str, Any] = {
            "state": state,
            "fraction": round(fraction, 4),
            "stage": stage,
            "time": time.time(),
            "pid": os.getpid(),
            "round": number,
            "rounds": rounds,
            "set_aside": self._images.set_aside,
        }
        if self._problem is not None and state == "idle":
            problem = self._problem
            told["problem"] = {"code": problem.code, "what": problem.what, "remedy": problem.remedy}
        try:
            write_json(self._folder.progress, told, private=True)
        except OSError:
            # people see old news where the disk is full; no round is lost for that
            _log.warning("the progress could not be written")

    def _report_idle(self) -> None:
        if not self._training.locked():
            self._report("idle", 0.0, "waiting for the federation")


def _gone(connection: Connection) -> bool:
    """Return whether who sent an order has gone: it sends nothing after it, so its end is all that can be read."""
    try:
        return connection.poll(0)
    except OSError:  # so a named pipe says it
        return True


@contextmanager
def _watchdog(limit_s: float) -> Iterator[None]:
    """End this process if the block takes longer: a computation that hangs cannot be cancelled in any other way."""

    def end() -> None:
        _log.error("a round took longer than %.0f s; the trainer ends and is started again", limit_s)
        os._exit(_OVERRUN_EXIT)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
