"""A small federation with a trainer made of NumPy, for tests of everything around training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.config import AggregationConfig, FederationConfig
from FedSegCore.federation.events import Event
from FedSegCore.federation.federated_run import StandingClock
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.rounds import FederationLoop
from FedSegCore.federation.trainer_port import SiteDescription
from FedSegCore.learning.results import CaseScore, RoundResult
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract

CONTRACT = LabelContract(
    labels=(Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101)),)
)


def federation(**changes) -> FederationConfig:
    """A federation of FedAvg over modalities; ``changes`` replace entries."""
    entries = {
        "name": "test",
        "contract": CONTRACT,
        "rounds": 3,
        "aggregation": AggregationConfig(rule="fedavg"),
        "join_deadline_s": 100.0,
        "return_deadline_s": 100.0,
        "round_deadline_s": 50.0,
    }
    return FederationConfig.model_validate({**entries, **changes})


def make_model(network, seed) -> dict[str, np.ndarray]:
    """A model of three tensors, one of them a counter."""
    return {
        "a": np.zeros((2, 3), np.float32),
        "b": np.full((4,), float(seed), np.float32),
        "steps": np.zeros((), np.int64),
    }


@dataclass
class AddingTrainer:
    """Adds ``step`` to every value; can be told to go wrong in given rounds.

    Attributes:
        wrong: round → "raise" (a plain exception), "code" (a FedSegError), "nan", "shape", "round".
        received: the model it got, by round.
    """

    modality: str = "CT"
    step: float = 1.0
    examples: int = 10
    wrong: Mapping[int, str] = field(default_factory=dict)
    received: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    def describe(self) -> SiteDescription:
        return SiteDescription(self.modality, self.examples, 1)

    def train_round(self, task, weights, request) -> RoundResult:
        number = request.round_number
        self.received[number] = {name: array.copy() for name, array in weights.items()}
        wrong = self.wrong.get(number)
        if wrong == "raise":
            raise RuntimeError("/data/Doe^Jane/scan.nii is broken")
        if wrong == "code":
            raise FedSegError("trainer.gone", "Doe^Jane", "remedy")
        trained = {
            name: (array + np.asarray(self.step if array.dtype.kind == "f" else 1, array.dtype))
            for name, array in weights.items()
        }
        if wrong == "nan":
            trained["a"][0, 0] = np.nan
        if wrong == "shape":
            trained["b"] = np.zeros((5,), np.float32)
        score = CaseScore("case-1", "liver", min(1.0, 0.1 * number), min(1.0, 0.05 * number), None)
        steps = min(5, (self.examples + 1) // 2)  # an epoch in batches of two
        return RoundResult(trained, self.examples, steps, 1.0 / number, (score,), {}, {"train": 0.5})


@dataclass
class Run:
    """A federation over a local grid whose clock moves only when the loop sleeps."""

    folder: Path
    config: FederationConfig
    trainers: Mapping[str, object]
    events: list[Event] = field(default_factory=list)
    hooks: dict = field(default_factory=dict)
    participation: object = None

    def __post_init__(self) -> None:
        self.clock = StandingClock()
        self.nodes = {name: LocalNode(make_client_app(trainer)) for name, trainer in self.trainers.items()}
        self.grid = LocalGrid(self.nodes, self.clock)

    def add(self, name: str, trainer: object) -> None:
        self.nodes[name] = LocalNode(make_client_app(trainer))

    def loop(self) -> FederationLoop:
        extra = {} if self.participation is None else {"participation": self.participation}
        return FederationLoop(
            self.grid,
            self.config,
            self.folder,
            on_event=self._event,
            make_model=make_model,
            clock=self.clock,
            sleep=self.clock.sleep,
            **extra,
        )

    def _event(self, event: Event) -> None:
        self.events.append(event)
        hook = self.hooks.get((event.event, event.group, event.round_number))
        if hook is not None:
            hook(event)

    def kinds(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.event == kind]
