"""Scores of a segmentation: per case and label, over the whole volume, in mm where it is a distance."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_average_surface_distance

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.results import CaseScore
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.volume import Grid

Labels = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]


class MeanAndSpread(NamedTuple):
    """Mean and sample standard deviation (0 for one case) over ``cases`` cases."""

    mean: float
    standard_deviation: float
    cases: int


def case_scores(
    predicted: Labels,
    truth: Labels,
    grid: Grid,
    contract: LabelContract,
    annotated: Sequence[int],
    case: str,
    *,
    distances: bool = True,
) -> tuple[CaseScore, ...]:
    """Return one score per annotated label of one case, in the contract's order.

    Labels that are not annotated are left out: nobody knows where they are. Voxels that the truth calls background
    count against every annotated label.

    Args:
        predicted: contract values (k, j, i).
        truth: contract values (k, j, i).
        grid: the grid of both; its spacing makes distances mm.
        contract: the labels.
        annotated: contract values that ``truth`` holds where they occur.
        case: the case id inside its site.
        distances: measure surface distances, which take longest.

    Raises:
        BadInputError: ``score.shapes`` where the arrays do not have the grid's shape.
    """
    if predicted.shape != grid.shape or truth.shape != grid.shape:
        raise BadInputError(
            "score.shapes",
            f"Prediction {predicted.shape} and truth {truth.shape} are not both of the image's size {grid.shape}.",
            "Compare label maps of the same image.",
        )
    return tuple(
        _label_score(predicted == label.value, truth == label.value, grid if distances else None, case, label.name)
        for label in contract.labels
        if label.value in annotated
    )


def dice(predicted: Mask, truth: Mask) -> float:
    """Return 2|A∩B| / (|A|+|B|) of two masks of one shape; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2.0 * int((predicted & truth).sum()) / total if total else 1.0


def intersection_over_union(predicted: Mask, truth: Mask) -> float:
    """Return |A∩B| / |A∪B| of two masks of one shape; 1 where both are empty."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def pixel_accuracy(predicted: Labels, truth: Labels) -> float:
    """Return the share of voxels with the right label.

    Never show it alone: calling everything background scores 0.90-0.92 on the ultrasound sets (METHODS §3).
    """
    return float((predicted == truth).mean())


def surface_distance_mm(predicted: Mask, truth: Mask, grid: Grid) -> float | None:
    """Return the average symmetric surface distance in mm; None where either mask is empty.

    The mean over the surface voxels of both masks of the distance to the nearest surface voxel of the other (MONAI).
    A single slice is measured in its plane; otherwise each of its voxels would count as surface.

    Args:
        predicted: mask (k, j, i).
        truth: mask (k, j, i).
        grid: their grid; spacing in mm.
    """
    if not predicted.any() or not truth.any():
        return None
    box = _bounding_box(predicted | truth)
    pair = np.stack([predicted[box], truth[box]])[:, None, None]
    spacing = [float(side) for side in reversed(grid.spacing)]  # MONAI refuses a mixture of int and float
    if grid.shape[0] == 1:
        pair, spacing = pair[:, :, :, 0], spacing[1:]
    tensors = torch.from_numpy(pair.astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of an argument it passes to itself
        distance = compute_average_surface_distance(
            tensors[0], tensors[1], include_background=True, symmetric=True, spacing=spacing
        )
    return float(distance)


def mean_and_sd(scores: Iterable[CaseScore], metric: str = "dice") -> dict[str, MeanAndSpread]:
    """Return per label the mean and standard deviation over cases of ``metric``, a field of CaseScore.

    Cases without a value (a distance to an empty mask) are left out and not counted; a label without any is absent.
    """
    values: dict[str, list[float]] = {}
    for score in scores:
        value: float | None = getattr(score, metric)
        if value is not None:
            values.setdefault(score.label, []).append(value)
    return {
        label: MeanAndSpread(fmean(found), stdev(found) if len(found) > 1 else 0.0, len(found))
        for label, found in values.items()
    }


def split_by_size(
    scores: Iterable[CaseScore], relative_areas: Mapping[tuple[str, str], float], threshold: float
) -> tuple[list[CaseScore], list[CaseScore]]:
    """Return FedGS's two halves of the scores: small lesions (DiceS) and the rest (DiceL).

    Args:
        scores: scores of cases that hold a lesion or not.
        relative_areas: (case, label) → a/A, the share of the image that the true lesion takes; 0 where there is none.
        threshold: τ; a lesion is small where A/a >= τ. Cases without a lesion are in neither half.
    """
    small: list[CaseScore] = []
    large: list[CaseScore] = []
    for score in scores:
        share = relative_areas[score.case, score.label]
        if share > 0.0:
            (small if 1.0 / share >= threshold else large).append(score)
    return small, large


def _label_score(predicted: Mask, truth: Mask, grid: Grid | None, case: str, label: str) -> CaseScore:
    return CaseScore(
        case=case,
        label=label,
        dice=dice(predicted, truth),
        iou=intersection_over_union(predicted, truth),
        surface_distance_mm=surface_distance_mm(predicted, truth, grid) if grid is not None else None,
    )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)
