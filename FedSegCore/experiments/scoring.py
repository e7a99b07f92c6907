"""Test scores: the whole chain of a release's use, from the image to labels on the image's own grid."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.inference.predictor import make_predictor
from FedSegCore.inference.segmenter import predict_labels
from FedSegCore.inference.weights import load_weights
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.metrics import case_scores
from FedSegCore.learning.results import Arrays, CaseScore
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.preparation import prepare


def score_cases(
    weights: Arrays,
    values: Sequence[int],
    cases: Sequence[TrainingCase],
    config: FederationConfig,
    modality: str,
    progress: Progress,
    device: torch.device,
) -> Iterator[tuple[CaseScore, ...]]:
    """Yield one case's scores after the other: segmented as a release would, compared on the original grid.

    ``values`` are the contract values the model was taught.
    """
    group = config.group_of(modality)
    network_config = config.network_of(group, modality)
    preprocessing = config.preprocessing_of(modality)
    with torch.random.fork_rng(devices=[]):
        network = build_network(network_config)
    load_weights(network, weights)
    predictor = make_predictor(
        network.to(device).eval(),
        network_config,
        config.training_of(group).patch_size,
        device,
        standardise=preprocessing.standardise,
        values=values,
    )
    for number, case in enumerate(cases):
        part = progress.part(number / len(cases), (number + 1) / len(cases))
        predicted, _ = predict_labels(predictor, prepare(case.image, preprocessing), config.contract, part)
        truth = case.labels.array[0]
        yield case_scores(predicted.array[0], truth, case.image.grid, config.contract, case.annotated, case.case_id)


def as_rows(facts: Mapping[str, Any], own: Sequence[CaseScore], group: Sequence[CaseScore]) -> list[dict[str, Any]]:
    """Return a row per label: the model the site would use (``dice`` …) and the group's model (``group_dice``)."""
    group_dice = {(score.case, score.label): score.dice for score in group}
    return [
        {
            **facts,
            "case": score.case,
            "label": score.label,
            "dice": score.dice,
            "iou": score.iou,
            "surface_distance_mm": score.surface_distance_mm,
            "group_dice": group_dice[score.case, score.label],
        }
        for score in own
    ]
