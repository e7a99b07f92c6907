"""How a ClientApp process, which lives for one message, reaches the site's long-lived trainer."""

import json
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.trainer_greeting import call
from FedSegCore.federation.site.trainer_wire import Frame, order_frame, raise_error, read_result, receive, send
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask

_RETRY_S = 0.3
_GREETING_S = 10.0


class TrainerClient:
    """The ``TrainerPort`` of a real site. Imports no torch, so that a ClientApp starts quickly.

    Args:
        folder: the site.
        start_limit_s: how long to wait for a trainer that is still starting (or being started again).
    """

    def __init__(self, folder: SiteFolder, start_limit_s: float = 120.0) -> None:
        self._folder = folder
        self._start_limit_s = start_limit_s

    def describe(self) -> SiteDescription:
        """Return what the site tells of its cohort; raises the trainer's FedSegError."""
        answer = self._ask(Frame({"method": "describe"}), limit_s=60.0)
        raise_error(answer)
        return SiteDescription(**answer.header["description"])

    def train_round(self, task: TrainingTask, weights: Arrays, request: RoundRequest) -> RoundResult:
        """Have one round trained; closing the connection, as this process's end does, cancels the training.

        Raises:
            FedSegError: the trainer's own; CannotDoHereError ``trainer.*`` where it is gone or too slow.
        """
        limit_s = self._folder.settings().round_limit_s
        return read_result(self._ask(order_frame(task, weights, request), limit_s))

    def _ask(self, frame: Frame, limit_s: float) -> Frame:
        connection = self._connect()
        try:
            send(connection, frame)
            if not connection.poll(limit_s):
                raise CannotDoHereError("trainer.too-slow", "The trainer took too long.", "Shorten the rounds.")
            return receive(connection)
        except (EOFError, OSError, ValueError) as error:
            raise CannotDoHereError(
                "trainer.gone", "The trainer ended in the middle of its work.", "It is started again by itself."
            ) from error
        finally:
            connection.close()

    def _connect(self) -> Connection:
        """Return a connection, or raise CannotDoHereError ``trainer.not-running`` soon after the limit."""
        deadline = time.monotonic() + self._start_limit_s
        while True:
            try:
                address, key = _address(self._folder.trainer_address)
                return call(address, key, min(_GREETING_S, self._start_limit_s))
            except (OSError, EOFError, AuthenticationError, ValueError, KeyError) as error:
                if time.monotonic() > deadline:
                    raise CannotDoHereError(
                        "trainer.not-running", "The site's trainer does not answer.", "Read logs/trainer.log."
                    ) from error
                time.sleep(_RETRY_S)


def _address(file: Path) -> tuple[str, bytes]:
    told = json.loads(file.read_bytes())
    return str(told["address"]), bytes.fromhex(told["key"])
