"""What validation gave in the rounds so far: a schedule that goes by it must not forget it at a restart."""

import json
import logging
import math
from pathlib import Path

from FedSegCore.common.files import write_json

_log = logging.getLogger(__name__)


class ValidationMemory:
    """A site's validation losses by round, of the training it is in; its own numbers, which never leave it.

    Args:
        file: keeps them for its owner only, so that they outlive this process; None: in memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._training, self._losses = ("", {}) if file is None else _read(file)

    def remember(self, training: str, round_number: int, loss: float | None) -> list[float]:
        """Return the losses of the rounds up to this one, oldest first, and keep them.

        Args:
            training: what tells one training from another: of any other nothing is known.
            round_number: the present round; what is known of later ones is of a former try.
            loss: its validation loss; None where nothing was scored.
        """
        known = self._losses if training == self._training else {}
        losses = {number: known[number] for number in sorted(known) if number < round_number}
        if loss is not None:
            losses[round_number] = loss
        if (training, losses) != (self._training, self._losses):
            self._training, self._losses = training, losses
            self._write()
        return list(losses.values())

    def _write(self) -> None:
        if self._file is None:
            return
        told = {"training": self._training, "losses": {str(number): loss for number, loss in self._losses.items()}}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, told, private=True)
        except OSError as error:
            # a full disk: this process still knows
            _log.warning("the validation losses could not be written down (%s)", type(error).__name__)


def _read(file: Path) -> tuple[str, dict[int, float]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        losses = {int(number): float(loss) for number, loss in told["losses"].items()}
        if all(map(math.isfinite, losses.values())):
            return str(told["training"]), losses
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return "", {}
