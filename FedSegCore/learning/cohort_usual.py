"""What is usual in the training part of a cohort: patients' measures, and what may be told of them; without torch."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from FedSegCore.learning.cohort import PreparedCase
from FedSegCore.volumes.usual import CohortUsual, Usual, image_features, log_volumes, values_at_the_edge

LOOK = 0
"""Subject of an image's look; the other subjects are contract values."""

Measured = Mapping[int, Mapping[str, tuple[float, ...]]]
"""Subject → patient → the means of the patient's measures."""


def measure_cohort(cases: Iterable[PreparedCase]) -> Measured:
    """Return the measures of every patient, each patient once."""
    rows: dict[int, dict[str, list[tuple[float, ...]]]] = {}
    for case in cases:
        found: dict[int, tuple[float, ...]] = {LOOK: image_features(case.image)}
        cut = values_at_the_edge(case.labels)  # not the whole structure
        volumes = log_volumes(case.labels, case.grid.spacing)
        found |= {value: (volume,) for value, volume in volumes.items() if value not in cut}
        for subject, values in found.items():
            rows.setdefault(subject, {}).setdefault(case.patient, []).append(values)
    return {
        subject: {patient: tuple(map(fmean, zip(*several, strict=True))) for patient, several in patients.items()}
        for subject, patients in rows.items()
    }


def usual_of(measured: Measured) -> CohortUsual:
    """Return what is usual, over patients."""
    usual = {subject: Usual.of([values for _, values in sorted(of.items())]) for subject, of in measured.items() if of}
    return CohortUsual(look=usual.pop(LOOK, None), volumes=dict(sorted(usual.items())))
