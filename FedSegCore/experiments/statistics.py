"""What the rows of an experiment say: means with spread, and paired differences with bootstrap intervals."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over patients."""

    mean: float
    standard_deviation: float
    patients: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return float(self.standard_deviation / np.sqrt(self.patients))


@dataclass(frozen=True)
class Difference:
    """Mean of patient-wise differences with its 95 % percentile bootstrap interval over patients."""

    mean: float
    low: float
    high: float
    patients: int


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


def case_of(row: Row) -> str:
    """Return what tells a row's case from all others: data sets name theirs alike (``case01``), sites differ."""
    return f"{row['site']}/{row['case']}" if "site" in row else str(row["case"])


def per_case_dice(rows: Iterable[Row], key: str = "dice") -> dict[tuple[str, int, str, str], float]:
    """Return the mean over labels: (setting, seed, modality, ``case_of``) → Dice in [0, 1]."""
    values: dict[tuple[str, int, str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["setting"], row["seed"], row["modality"], case_of(row)].append(row[key])
    return {where: float(np.mean(scores)) for where, scores in values.items()}


def case_values(rows: Iterable[Row], setting: str, key: str = "dice") -> dict[tuple[int, str, str], float]:
    """Return the mean over labels of one setting: (seed, modality, ``case_of``) → value."""
    found = per_case_dice([row for row in rows if row["setting"] == setting], key)
    return {(seed, modality, case): value for (_, seed, modality, case), value in found.items()}


def patient_means(rows: Sequence[Row], values: Mapping[tuple[int, str, str], float]) -> dict[str, float]:
    """Return patient (of a site) → mean over seeds and cases of ``values`` ((seed, modality, ``case_of``) → value).

    The cases of a patient and the seeds of a case are not independent: a patient counts once, however many there are.
    """
    patients = {case_of(row): f"{row.get('site', '')}/{row.get('patient', row['case'])}" for row in rows}
    grouped: dict[str, list[float]] = defaultdict(list)
    for (_, _, case), value in values.items():
        grouped[patients[case]].append(value)
    return {patient: float(np.mean(found)) for patient, found in grouped.items()}


def spread(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation of at least one patient's value; one alone has none (0)."""
    array = np.asarray(list(values), np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0, len(array))


def setting_spread(rows: Sequence[Row], setting: str, key: str = "dice") -> Spread | None:
    """Return a setting's mean over labels, then cases and seeds, then patients; None where it has no rows."""
    found = case_values(rows, setting, key)
    return spread(patient_means(rows, found).values()) if found else None


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

    The unit is the patient, as in ``patient_means``: their mean is told, and they are resampled.

    Raises:
        ValueError: the two settings share no case.
    """
    kept = chosen_rows(rows, modality=modality)
    own, other = case_values(kept, setting, key), case_values(kept, reference, key)
    gaps = patient_means(kept, {where: value - other[where] for where, value in own.items() if where in other})
    if not gaps:
        raise ValueError(f"{setting} and {reference} share no {modality or 'test'} case")
    found = np.array(list(gaps.values()))
    draws = np.random.default_rng(seed).integers(0, len(found), (resamples, len(found)))
    low, high = np.percentile(found[draws].mean(axis=1), [2.5, 97.5])
    return Difference(float(found.mean()), float(low), float(high), len(found))


def mean_curve(curve: Iterable[Row]) -> dict[int, float]:
    """Return round → mean validation Dice over one group's sites in one run; empty where nothing was scored.

    A site that is missing counts with its last scores.

    Args:
        curve: rows of ``round``, ``site`` and ``scores`` (label → Dice).
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
    return means


def rounds_needed(means: Mapping[int, float], bar: float) -> int | None:
    """Return how many rounds were trained until a ``mean_curve`` first reached ``bar``; None if it never did.

    Round r's scores are of the model before round r's training, so r - 1 rounds were trained.
    """
    reached = [number for number, mean in means.items() if mean >= bar]
    return min(reached) - 1 if reached else None
