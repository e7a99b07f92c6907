"""Error feedback at a site: what rounding and leaving out held back joins the next round's update.

The remainder lies in the process that trains, or in private files beside it. It is made of updates that have passed
the gate (clipped, with their noise), so that it tells no more than these, and it joins an update before the gate, so
that clipping and bounds hold for the sum.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.array_files import LazyArrays, save_arrays
from FedSegCore.federation.compression import Decoded, Numbers, difference, encode
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.trainer_port import SiteDescription, TrainerPort
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask

_SUFFIX = ".safetensors"
_ROUNDS = 2

_log = logging.getLogger(__name__)


class Remainder:
    """What was held back after the last rounds; forgotten when the model is another one or rounds begin anew.

    A round that is asked for again starts from the remainder it started from before.

    Args:
        folder: keeps it in private files, so that it outlives this process; None: in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: dict[int, Arrays] = {} if folder is None else _read(folder)

    def join(self, received: Arrays, result: RoundResult, request: RoundRequest) -> RoundResult:
        """Return ``result`` with what was held back before."""
        held = self._start(request, {**received, **result.extras})
        return replace(result, weights=_sum(result.weights, held), extras=_sum(result.extras, held))

    def leave(self, received: Arrays, cleared: RoundResult, request: RoundRequest) -> RoundResult:
        """Return what travels of a result that the gate has cleared, and keep the rest."""
        weights, unchanged = encode(cleared.weights, received, request.exchange)
        extras, _ = encode(cleared.extras, {}, request.exchange)
        sent = replace(cleared, weights=weights, extras=extras, encoded=True, unchanged=unchanged)
        if request.exchange.feeds_back:
            arrived = decoded(sent, received)
            held = {
                **_difference(cleared.weights, arrived.weights),
                **_difference(cleared.extras, arrived.extras),
            }
            self._keep(request.round_number, held)
        return sent

    def _start(self, request: RoundRequest, like: Arrays) -> Arrays:
        last = max((number for number in self._kept if number < request.round_number), default=0)
        held = self._kept.get(last, {})
        fits = all(name in like and like[name].shape == array.shape for name, array in held.items())
        goes_on = request.exchange.feeds_back and fits
        self._forget(number for number in self._kept if number >= request.round_number or not goes_on)
        return held if goes_on else {}

    def _keep(self, number: int, held: Arrays) -> None:
        if self._folder is None:
            self._kept[number] = held
        else:
            self._kept[number] = _written(self._folder / f"{number:06d}{_SUFFIX}", held)
        self._forget(sorted(self._kept)[:-_ROUNDS])

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            del self._kept[number]
            if self._folder is not None:
                (self._folder / f"{number:06d}{_SUFFIX}").unlink(missing_ok=True)


def decoded(sent: RoundResult, received: Arrays) -> RoundResult:
    """Return what the server will make of ``sent``, with the model the site received as base."""
    weights, extras = Decoded(sent.weights, received, sent.unchanged), Decoded(sent.extras, received)
    return replace(sent, weights=weights, extras=extras, encoded=False, unchanged=())


class ExchangingTrainer:
    """A trainer whose results travel as the federation asks; for sites in this process, which have no gate.

    Args:
        trainer: trains.
        folder: keeps what was held back, so that a run that is taken up again goes on as if it had not been broken off.
    """

    def __init__(self, trainer: TrainerPort, folder: Path | None = None) -> None:
        self._trainer = trainer
        self._remainder = Remainder(folder)

    def describe(self) -> SiteDescription:
        """See ``TrainerPort.describe``."""
        return self._trainer.describe()

    def train_round(self, task: TrainingTask, weights: Arrays, request: RoundRequest) -> RoundResult:
        """See ``TrainerPort.train_round``."""
        result = self._trainer.train_round(task, weights, request)
        return self._remainder.leave(weights, self._remainder.join(weights, result, request), request)


def _sum(arrays: Arrays, held: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    return {name: _added(array, held[name]) if name in held else array for name, array in arrays.items()}


def _added(array: Numbers, held: Numbers) -> Numbers:
    return np.asarray(array + held, array.dtype)


def _difference(cleared: Arrays, arrived: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    pairs = ((name, array, arrived[name]) for name, array in cleared.items() if array.dtype.kind == "f")
    return {name: difference(array, other) for name, array, other in pairs if not np.array_equal(array, other)}


def _read(folder: Path) -> dict[int, Arrays]:
    kept: dict[int, Arrays] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            kept[int(path.stem)] = LazyArrays(path)
        except (OSError, ValueError):
            # half written when the process ended: what it held is lost, as it would be without a file
            path.unlink(missing_ok=True)
    return kept


def _written(path: Path, held: Arrays) -> Arrays:
    try:
        private_folder(path.parent.parent)
        private_folder(path.parent)
        save_arrays(path, held)
    except CannotDoHereError as error:
        # a full disk: the round's answer need not wait for it
        _log.warning("what was held back is lost: %s", error.code)
        path.unlink(missing_ok=True)
        return {}
    return LazyArrays(path)
