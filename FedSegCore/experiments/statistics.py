"""What the rows of an experiment say: means with spread, and paired differences with bootstrap intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over cases."""

    mean: float
    standard_deviation: float
    cases: int


@dataclass(frozen=True)
class Difference:
    """Mean of case-wise differences with its 95 % percentile bootstrap interval over patients."""

    mean: float
    low: float
    high: float
    cases: int


def per_case_dice(rows: Iterable[Row], key: str = "dice") -> dict[tuple[str, int, str, str], float]:
    """Return the mean over labels: (setting, seed, modality, case) → Dice in [0, 1]."""
    values: dict[tuple[str, int, str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["setting"], row["seed"], row["modality"], row["case"]].append(row[key])
    return {where: float(np.mean(scores)) for where, scores in values.items()}


def spread(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation of at least one value; one value alone has none (0)."""
    array = np.asarray(list(values), np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0, len(array))


def paired_difference(
    rows: Iterable[Row], setting: str, reference: str, modality: str, *, resamples: int = 5000, seed: int = 0
) -> Difference:
    """Return how much better ``setting`` is than ``reference`` on the same cases and seeds (Dice, mean over labels).

    Cases are resampled whole: the seeds of one case stay together, since they are not independent patients.

    Raises:
        ValueError: the two settings share no case.
    """
    dice = per_case_dice(rows)
    gaps: dict[str, list[float]] = defaultdict(list)
    for (name, run_seed, kind, case), value in dice.items():
        other = dice.get((reference, run_seed, kind, case))
        if name == setting and kind == modality and other is not None:
            gaps[case].append(value - other)
    if not gaps:
        raise ValueError(f"{setting} and {reference} share no {modality} case")
    per_case: npt.NDArray[np.float64] = np.array([np.mean(values) for values in gaps.values()])
    draws = np.random.default_rng(seed).integers(0, len(per_case), (resamples, len(per_case)))
    low, high = np.percentile(per_case[draws].mean(axis=1), [2.5, 97.5])
    return Difference(float(per_case.mean()), float(low), float(high), len(per_case))
