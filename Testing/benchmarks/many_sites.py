"""A federation of many cheap sites through the real loop, client apps and in-process grid: its memory and time."""

import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Message

from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.config import AggregationConfig, FederationConfig
from FedSegCore.federation.federated_run import StandingClock
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.remainder import ExchangingTrainer
from FedSegCore.federation.rounds import FederationLoop
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract

LAYERS = 16
"""Kernels of the model, all alike, beside one bias and one counter."""

CONTRACT = LabelContract(
    labels=(Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101)),)
)


@dataclass(frozen=True)
class Size:
    """A federation's size.

    Attributes:
        sites: how many.
        values: float32 values of the model.
        rounds: how many.
    """

    sites: int
    values: int
    rounds: int = 1


@dataclass
class Watch:
    """What was seen.

    Attributes:
        seconds: processor time of the whole run.
        server_peak: most bytes held at once by the server's own code (loop, checks, rule, store), beside what it held
            before; messages it was given count, what grid and sites need to make them does not.
        peak: most bytes held at once by all of it: server, grid, and the one site that is at work.
        round_peaks: ``server_peak`` of every round.
    """

    seconds: float = 0.0
    server_peak: int = 0
    peak: int = 0
    round_peaks: list[int] = field(default_factory=list)


class WatchedGrid(LocalGrid):
    """A local grid that reads the memory's high-water mark whenever the server calls it."""

    watch: Watch
    before: int

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See ``Grid``."""
        self.read(server=True)
        sent = super().push_messages(messages)
        self.read(server=False)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See ``Grid``."""
        self.read(server=True)
        replies = super().pull_messages(message_ids)
        self.read(server=False)
        return replies

    def read(self, *, server: bool) -> None:
        """Note the high-water mark since the last call, made by the server or by grid and sites."""
        if tracemalloc.is_tracing():
            peak = tracemalloc.get_traced_memory()[1] - self.before
            self.watch.peak = max(self.watch.peak, peak)
            if server:
                self.watch.server_peak = max(self.watch.server_peak, peak)
                if self.watch.round_peaks:
                    self.watch.round_peaks[-1] = max(self.watch.round_peaks[-1], peak)
            tracemalloc.reset_peak()


class CheapTrainer:
    """Adds to every value something of its own, without training."""

    def __init__(self, number: int) -> None:
        self._number = number

    def describe(self) -> SiteDescription:
        """See ``TrainerPort``."""
        return SiteDescription("CT", 10, 0)

    def train_round(self, task: TrainingTask, weights: Arrays, request: RoundRequest) -> RoundResult:
        """See ``TrainerPort``."""
        step = np.float32(1e-3 * (1 + self._number % 7) * request.round_number)
        phase = self._number % 101
        trained = {}
        for name, array in weights.items():
            ramp = np.resize(np.arange(phase, phase + 97, dtype=np.float32), array.shape)
            trained[name] = array + step * ramp if array.dtype.kind == "f" else array
        return RoundResult(trained, 10 + self._number % 5, 5, 0.5)


def model_of(values: int) -> dict[str, np.ndarray]:
    """Return a model of ``values`` float32 values in kernels."""
    generator = np.random.default_rng(0)
    side = values // LAYERS
    kernels = {f"layer{n}.weight": generator.normal(size=(1, side)).astype(np.float32) for n in range(LAYERS)}
    return {**kernels, "bias": np.zeros(8, np.float32), "count": np.zeros((), np.int64)}


def run(size: Size, rule: str, exchange: ExchangeConfig, folder: Path, *, memory: bool = True) -> Watch:
    """Run a federation and return what was seen; ``memory`` False measures time only, undisturbed.

    Raises:
        AssertionError: a site was left out.
    """
    config = FederationConfig(
        name="many",
        contract=CONTRACT,
        rounds=size.rounds,
        aggregation=AggregationConfig(rule=rule),
        exchange=exchange,
    )
    clock, watch = StandingClock(), Watch()
    nodes: dict[str, LocalNode] = {}
    for number in range(size.sites):
        name = f"s{number:05d}"
        trainer = ExchangingTrainer(CheapTrainer(number), folder / "remainders" / name)
        nodes[name] = LocalNode(make_client_app(trainer))
    grid = WatchedGrid(nodes, clock, folder=folder / "messages")
    grid.watch = watch
    loop = FederationLoop(
        grid,
        config,
        folder,
        make_model=lambda *_: model_of(size.values),
        clock=clock,
        sleep=clock.sleep,
        on_event=lambda event: watch.round_peaks.append(0) if event.event == "round-started" else None,
    )
    if memory:
        tracemalloc.start()
    try:
        grid.before = tracemalloc.get_traced_memory()[0]
        begun = time.process_time()
        loop.run()
        watch.seconds = time.process_time() - begun
        grid.read(server=True)
    finally:
        tracemalloc.stop()
        grid.close()
    group = FederationOutcome.load(folder).groups["CT"]
    assert group.done
    assert len(group.history) == size.sites * size.rounds
    assert not any(row.code for row in group.history)
    return watch


@dataclass(frozen=True)
class Cost:
    """What a federation costs.

    Attributes:
        server_models: float32 models that the server's own code holds at once.
        models: the same of server, grid and the site at work together.
        seconds: processor time of a round, with memory watched.
    """

    server_models: float
    models: float
    seconds: float


def cost(size: Size, rule: str, exchange: ExchangeConfig, folder: Path) -> Cost:
    """Return what a federation costs.

    The models held are how much the peak grows from a model of a sixteenth to the whole, in models: what grows with
    the number of sites but not with the model (names, rows, events) is in both and falls out.
    """
    small = Size(size.sites, size.values // 16, size.rounds)
    watches = [run(one, rule, exchange, folder / str(one.values)) for one in (small, size)]
    more = 4 * (size.values - small.values)
    return Cost(
        (watches[1].server_peak - watches[0].server_peak) / more,
        (watches[1].peak - watches[0].peak) / more,
        watches[1].seconds / size.rounds,
    )
