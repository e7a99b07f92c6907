"""What the rows of an experiment say: means with spread, and paired differences with bootstrap intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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


@dataclass(frozen=True)
class RoundsNeeded:
    """How soon a run got near its end.

    Attributes:
        rounds: rounds trained until the validation Dice first reached the share of its last value.
        last: that last value, in [0, 1].
    """

    rounds: int
    last: float


def chosen_rows(
    rows: Iterable[Row], *, modality: str | None = None, sites: Sequence[str] = (), size: str | None = None
) -> list[Row]:
    """Return the rows of a modality, of some sites, and of small or large lesions; what is not given does not count."""
    return [
        row
        for row in rows
        if (modality is None or row["modality"] == modality)
        and (not sites or row["site"] in sites)
        and (size is None or row.get("size") == size)
    ]


def per_case_dice(rows: Iterable[Row], key: str = "dice") -> dict[tuple[str, int, str, str], float]:
    """Return the mean over labels: (setting, seed, modality, case) → Dice in [0, 1]."""
    values: dict[tuple[str, int, str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["setting"], row["seed"], row["modality"], row["case"]].append(row[key])
    return {where: float(np.mean(scores)) for where, scores in values.items()}


def case_values(rows: Iterable[Row], setting: str, key: str = "dice") -> dict[tuple[int, str, str], float]:
    """Return the mean over labels of one setting: (seed, modality, case) → value."""
    found = per_case_dice([row for row in rows if row["setting"] == setting], key)
    return {(seed, modality, case): value for (_, seed, modality, case), value in found.items()}


def spread(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation of at least one value; one value alone has none (0)."""
    array = np.asarray(list(values), np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0, len(array))


def standard_error(rows: Sequence[Row], setting: str, key: str = "dice") -> float:
    """Return the standard error over patients of a setting's mean: of the patients' means over cases and seeds."""
    patients = _patients(rows)
    means: dict[str, list[float]] = defaultdict(list)
    for (_, _, case), value in case_values(rows, setting, key).items():
        means[patients[case]].append(value)
    per_patient = spread(float(np.mean(values)) for values in means.values())
    return float(per_patient.standard_deviation / np.sqrt(per_patient.cases))


def paired_difference(
    rows: Sequence[Row],
    setting: str,
    reference: str,
    modality: str | None,
    *,
    key: str = "dice",
    resamples: int = 5000,
    seed: int = 0,
) -> Difference:
    """Return how much better ``setting`` is than ``reference`` on the same cases and seeds (mean over labels).

    Patients are resampled whole: the seeds of a case and the cases of a patient stay together, since they are not
    independent. A case counts once whatever the number of its seeds.

    Raises:
        ValueError: the two settings share no case.
    """
    kept = chosen_rows(rows, modality=modality)
    own, other = case_values(kept, setting, key), case_values(kept, reference, key)
    gaps: dict[str, list[float]] = defaultdict(list)
    for where, value in own.items():
        if where in other:
            gaps[where[-1]].append(value - other[where])
    if not gaps:
        raise ValueError(f"{setting} and {reference} share no {modality or 'test'} case")
    patients = _patients(kept)
    clusters: dict[str, list[float]] = defaultdict(list)
    for case, values in gaps.items():
        clusters[patients[case]].append(float(np.mean(values)))
    sums = np.array([sum(values) for values in clusters.values()])
    counts = np.array([len(values) for values in clusters.values()])
    draws = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    low, high = np.percentile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), [2.5, 97.5])
    return Difference(float(sums.sum() / counts.sum()), float(low), float(high), len(gaps))


def rounds_needed(curve: Iterable[Row], share: float) -> RoundsNeeded | None:
    """Return after how many rounds one group's mean validation Dice first reached ``share`` of its last value.

    Round r's scores are of the model before round r's training, so r - 1 rounds were trained. A site that is missing
    counts with its last scores. None where nothing was scored.

    Args:
        curve: rows of ``round``, ``site`` and ``scores`` (label → Dice) of one group in one run.
        share: in (0, 1].
    """
    by_round: dict[int, dict[str, float]] = defaultdict(dict)
    for row in curve:
        if row["scores"]:
            by_round[row["round"]][row["site"]] = float(np.mean(list(row["scores"].values())))
    known: dict[str, float] = {}
    means: dict[int, float] = {}
    for number in sorted(by_round):
        known |= by_round[number]
        means[number] = float(np.mean(list(known.values())))
    if not means:
        return None
    last = means[max(means)]
    return RoundsNeeded(min(number for number, mean in means.items() if mean >= share * last) - 1, last)


def _patients(rows: Iterable[Row]) -> dict[str, str]:
    """Return case → patient; rows without a patient are of one case each."""
    return {row["case"]: str(row.get("patient", row["case"])) for row in rows}
