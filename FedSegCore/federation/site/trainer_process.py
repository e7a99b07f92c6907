"""Entry of the site's trainer process: keeps torch, the device and the prepared cohort in memory between rounds.

It answers over a local socket (a named pipe on Windows) whose address and random key stand in a file of mode 0600.
Every connection has a thread of its own, so that a round can be cancelled while it is being trained.
"""

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from types import FrameType

from FedSegCore.common.errors import CannotDoHereError, FedSegError
from FedSegCore.common.files import write_json
from FedSegCore.common.progress import Progress
from FedSegCore.federation.private_files import write_private
from FedSegCore.federation.process_group import follow_parent
from FedSegCore.federation.process_log import log_to_stderr
from FedSegCore.federation.site.cohort_trainer import CohortTrainer
from FedSegCore.federation.site.folder import SOCKET_PREFIX, SiteFolder
from FedSegCore.federation.site.gated_trainer import GatedTrainer
from FedSegCore.federation.site.trainer_wire import Frame, error_frame, read_order, receive, result_frame, send

_PROGRESS_EVERY_S = 0.5
_FORMER_ROUND_S = 60.0
_WATCHDOG_GRACE_S = 60.0
_OVERRUN_EXIT = 75

_log = logging.getLogger("FedSegCore.federation.site.trainer_process")


class TrainerServer:
    """Answers ``describe``, ``train_round`` and ``stop``; one round at a time.

    Args:
        folder: the site.
        trainer: what trains; it is reached through the site's gate only.
    """

    def __init__(self, folder: SiteFolder, trainer: CohortTrainer) -> None:
        self._folder = folder
        self._trainer = GatedTrainer(folder, trainer)
        self._training = threading.Lock()
        self._cancelled = threading.Event()

    def serve(self, listener: Listener) -> None:
        """Answer connections until the process ends."""
        self._report("idle", 0.0, "waiting for the federation")
        while True:
            try:
                connection = listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                _log.warning("a connection without the right key was refused")
                continue
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: Connection) -> None:
        with connection:
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
                    return Frame({"description": asdict(self._trainer.describe())})
                case "train_round":
                    return self._train_round(frame, connection)
                case "stop":
                    self._cancelled.set()
                    return Frame({"stopped": True})
                case _:
                    raise ValueError("no such method")
        except FedSegError as error:
            _log.warning("%s", error)
            return error_frame(error)
        except MemoryError:
            return error_frame(CannotDoHereError("trainer.memory", "Memory ran out.", "Close other programs."))
        except Exception:  # noqa: BLE001
            # Whatever goes wrong in training ends this round only, and its text stays in this log.
            _log.exception("the request failed")
            return error_frame(CannotDoHereError("trainer.failed", "Training failed.", "Read logs/trainer.log."))

    def _train_round(self, frame: Frame, connection: Connection) -> Frame:
        task, weights, request = read_order(frame)
        if not self._training.acquire(timeout=_FORMER_ROUND_S):
            raise CannotDoHereError("trainer.busy", "Another round is still being trained.", "Try again later.")
        try:
            self._cancelled.clear()
            progress = self._progress(f"round {request.round_number} of {request.rounds}", connection)
            with _watchdog(self._folder.settings().round_limit_s + _WATCHDOG_GRACE_S):
                return result_frame(self._trainer.train_round(task, weights, request, progress))
        finally:
            self._report("idle", 0.0, "waiting for the federation")
            self._training.release()

    def _progress(self, title: str, connection: Connection) -> Progress:
        last = 0.0

        def tell(fraction: float, stage: str) -> None:
            nonlocal last
            if connection.poll(0):
                # The other side sends nothing after its order: what can be read now is that it has gone.
                self._cancelled.set()
            if time.monotonic() - last > _PROGRESS_EVERY_S:
                last = time.monotonic()
                self._report("training", fraction, f"{title}: {stage}")

        return Progress(tell, self._cancelled)

    def _report(self, state: str, fraction: float, stage: str) -> None:
        told = {"state": state, "fraction": round(fraction, 4), "stage": stage, "time": time.time(), "pid": os.getpid()}
        write_json(self._folder.progress, told, private=True)


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


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Run the trainer of a site's folder until it is told to stop or its parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    log_to_stderr()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _terminate)
    follow_parent(arguments.parent_pid)
    folder = SiteFolder.open(arguments.folder)
    trainer = CohortTrainer(folder)
    key = secrets.token_bytes(32)
    # A socket's path may have about 100 characters only, so it lies in a short private folder of its own.
    home = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX))
    pipe = rf"\\.\pipe\fedseg-{secrets.token_hex(16)}"
    address, family = (pipe, "AF_PIPE") if os.name == "nt" else (str(home / "trainer"), "AF_UNIX")
    try:
        with Listener(address, family, authkey=key) as listener:
            told = {"address": address, "key": key.hex(), "pid": os.getpid()}
            write_private(folder.trainer_address, json.dumps(told).encode("ascii"))
            TrainerServer(folder, trainer).serve(listener)
    except SystemExit:
        _log.info("told to stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    # Nothing is left to be written, and taking torch down in order takes seconds.
    os._exit(0)


if __name__ == "__main__":
    main()
