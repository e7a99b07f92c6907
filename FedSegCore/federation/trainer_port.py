"""What a client app asks of its site: who it is, and one round of training."""

from dataclasses import dataclass
from typing import Protocol

from flwr.app import RecordDict

from FedSegCore.common.errors import FedSegError
from FedSegCore.learning.results import Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask


@dataclass(frozen=True)
class SiteDescription:
    """What a site tells the federation of its cohort: numbers, never names.

    Attributes:
        modality: DICOM modality code.
        training_cases: cases it trains on.
        validation_cases: cases it scores received models on.
    """

    modality: str
    training_cases: int
    validation_cases: int


JOURNALLED_BY_TRAINER = ("gate.", "policy.")
"""Starts of the codes that a real site's trainer writes into its journal itself, with the numbers behind them."""


class AnswerWatch(Protocol):
    """Told of what leaves a site beside rounds' results, before it leaves."""

    def introduced(self, description: SiteDescription, content: RecordDict) -> None:
        """The answer to a query is about to leave; raises FedSegError to hold it back."""

    def asked(self, missing: int) -> None:
        """A query came; the server waits for so many more sites."""

    def refused(self, error: FedSegError) -> None:
        """Nothing but ``error.code`` is about to leave."""


class TrainerPort(Protocol):
    """The site behind a client app: in this process (experiments) or behind a local socket (a real site).

    Both methods raise FedSegError where they cannot; only its ``code`` reaches the server.
    """

    def describe(self) -> SiteDescription:
        """Return what the site tells of its cohort."""

    def train_round(self, task: TrainingTask, weights: Arrays, request: RoundRequest) -> RoundResult:
        """Score ``weights`` on the site's validation cases, train them one round and return the result."""
