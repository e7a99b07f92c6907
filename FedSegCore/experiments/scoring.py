"""Test scores: the whole chain of a release's use, from the image to labels on the image's own grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from FedSegCore.common.progress import Progress
from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.federation.config import FederationConfig
from FedSegCore.inference.predictor import make_predictor
from FedSegCore.inference.segmenter import predict_labels
from FedSegCore.inference.weights import load_weights
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.metrics import case_scores, pixel_accuracy, split_by_size
from FedSegCore.learning.results import Arrays, CaseScore
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.preparation import prepare


@dataclass(frozen=True)
class ScoredCase:
    """One test case segmented by one model.

    Attributes:
        scores: per annotated label.
        accuracy: share of voxels with the right label.
    """

    scores: tuple[CaseScore, ...]
    accuracy: float


@dataclass(frozen=True)
class Tester:
    """Segments and scores the test cases of one site.

    Attributes:
        config: the federation.
        modality: of the site's images.
        group: the group whose model it is.
        device: where to compute.
        distances: measure surface distances.
    """

    config: FederationConfig
    modality: str
    group: str
    device: torch.device
    distances: bool = True

    def score(
        self, weights: Arrays, values: Sequence[int], cases: Sequence[TrainingCase], progress: Progress
    ) -> Iterator[ScoredCase]:
        """Yield one case's scores after the other: segmented as a release would, compared on the original grid.

        ``values`` are the contract values the model was taught.
        """
        config = self.config
        network_config = config.network_of(self.group, self.modality)
        preprocessing = config.preprocessing_of(self.modality)
        with torch.random.fork_rng(devices=[]):
            network = build_network(network_config)
        load_weights(network, weights)
        predictor = make_predictor(
            network,
            network_config,
            config.training_of(self.group).patch_size,
            self.device,
            standardise=preprocessing.standardise,
            values=values,
        )
        for number, case in enumerate(cases):
            part = progress.part(number / len(cases), (number + 1) / len(cases))
            found = predict_labels(predictor, prepare(case.image, preprocessing), config.contract, part)
            predicted, truth = found.labels.array[0], case.labels.array[0]
            scores = case_scores(
                predicted,
                truth,
                case.image.grid,
                config.contract,
                case.annotated,
                case.case_id,
                distances=self.distances,
            )
            yield ScoredCase(scores, pixel_accuracy(predicted, truth))


def case_rows(
    facts: Mapping[str, Any], case: TrainingCase, own: ScoredCase, group: ScoredCase, experiment: ExperimentConfig
) -> list[dict[str, Any]]:
    """Return a row per label: the model the site would use (``dice`` …) and the group's model (``group_dice``).

    Where the experiment asks for it: ``pixel_accuracy``; ``relative_area`` (a/A of the whole image) and ``size``
    (``"small"``, ``"large"``, or ``"none"`` where the truth holds nothing of the label).
    """
    group_dice = {score.label: score.dice for score in group.scores}
    sizes = _sizes(case, own.scores, experiment, facts["modality"])
    return [
        {
            **facts,
            "case": score.case,
            "patient": case.patient,
            "label": score.label,
            "dice": score.dice,
            "iou": score.iou,
            "surface_distance_mm": score.surface_distance_mm,
            "group_dice": group_dice[score.label],
            **({"pixel_accuracy": own.accuracy} if experiment.pixel_accuracy else {}),
            **sizes.get(score.label, {}),
        }
        for score in own.scores
    ]


def _sizes(
    case: TrainingCase, scores: Sequence[CaseScore], experiment: ExperimentConfig, modality: str
) -> dict[str, dict[str, Any]]:
    threshold = experiment.small_lesions.get(modality)
    if threshold is None:
        return {}
    contract = experiment.contract()
    shares = {score.label: float((case.labels.array == contract.value_of(score.label)).mean()) for score in scores}
    areas = {(case.case_id, label): share for label, share in shares.items()}
    small, large = ({score.label for score in half} for half in split_by_size(scores, areas, threshold))
    return {
        label: {"relative_area": share, "size": "small" if label in small else "large" if label in large else "none"}
        for label, share in shares.items()
    }
