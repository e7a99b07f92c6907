"""What is usual in a set of images, as a few numbers that tell nothing of one of them: measured, pooled, compared."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

BINS = 8
"""Equal bins of the intensities in [0, 1] whose shares say how an image looks."""

FEATURES = BINS + 1
"""Numbers that ``image_features`` gives."""

LEAST_VOLUME_SPREAD = 0.1
"""Standard deviation of the logarithm of a volume below which none is believed: a tenth of the volume, about what two
outlines of the same organ differ by."""

LEAST_LOOK_SPREAD = (*(0.02,) * BINS, 0.005)
"""Standard deviations of ``image_features`` below which none is believed: a little more air in the picture, or another
reconstruction kernel, is no other kind of image."""

RARE = 0.00135
"""Share of usual values that lie beyond one of the two limits: that beyond three standard deviations."""

Deviation = Annotated[FiniteFloat, Field(ge=0.0)]


class Usual(BaseModel):
    """Mean and spread of one or more measures over patients.

    Attributes:
        patients: how many.
        mean: of each measure.
        deviation: sample standard deviation of each; 0 of a single patient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: Annotated[int, Field(ge=1, le=10**9)]
    mean: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=FEATURES)]
    deviation: Annotated[tuple[Deviation, ...], Field(min_length=1, max_length=FEATURES)]

    @model_validator(mode="after")
    def _as_many_of_both(self) -> Self:
        if len(self.mean) != len(self.deviation):
            raise ValueError("every measure has a mean and a deviation")
        return self

    @classmethod
    def of(cls, values: Sequence[Sequence[float]]) -> "Usual":
        """Return what is usual of measures, one row a patient."""
        table = np.asarray(values, np.float64)
        deviation = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1])
        mean = table.mean(axis=0)
        return cls(patients=len(table), mean=tuple(map(float, mean)), deviation=tuple(map(float, deviation)))

    @classmethod
    def pooled(cls, parts: Sequence["Usual"]) -> "Usual":
        """Return what ``of`` would have given of the patients of all ``parts`` together."""
        count = np.array([[part.patients] for part in parts], np.float64)
        means, deviations = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "deviation"))
        patients = int(count.sum())
        mean = (count * means).sum(axis=0) / patients
        squares = ((count - 1) * deviations**2 + count * (means - mean) ** 2).sum(axis=0)
        deviation = np.sqrt(squares / max(1, patients - 1))
        return cls(patients=patients, mean=tuple(map(float, mean)), deviation=tuple(map(float, deviation)))

    def rounded(self, decimals: int) -> "Usual":
        """Return this with so many places."""
        return Usual(
            patients=self.patients,
            mean=tuple(round(value, decimals) for value in self.mean),
            deviation=tuple(round(value, decimals) for value in self.deviation),
        )

    def reach(self) -> float:
        """Return how many standard deviations from the mean a further patient may well lie.

        Three where many patients are known; more where the spread is that of a few (Student's t, for one more value of
        a normal distribution), infinitely many where it is that of one.
        """
        from scipy.special import stdtrit  # a client app's process, which starts for every message, does without

        if self.patients < 2:
            return math.inf
        return float(-stdtrit(self.patients - 1, RARE)) * math.sqrt(1.0 + 1.0 / self.patients)


class CohortUsual(BaseModel):
    """What is usual in a site's training cohort.

    Attributes:
        look: of ``image_features``; None where it is not told.
        volumes: contract value → natural logarithm of the structure's volume in ml, where it is whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    look: Usual | None = None
    volumes: dict[Annotated[int, Field(ge=1, le=255)], Usual] = {}

    @model_validator(mode="after")
    def _right_measures(self) -> Self:
        check_measures(self.look, self.volumes.values())
        return self


def check_measures(look: Usual | None, volumes: Any) -> None:
    """Raise ValueError unless ``look`` is of ``image_features`` and each of ``volumes`` of one measure."""
    if look is not None and len(look.mean) != FEATURES:
        raise ValueError(f"an image's look has {FEATURES} measures")
    if any(len(volume.mean) != 1 for volume in volumes):
        raise ValueError("a volume is one measure")


def image_features(image: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Return how a prepared image looks: shares of voxels in ``BINS`` equal bins, and its roughness.

    Args:
        image: (c, k, j, i) in [0, 1], as a network of the release sees it before standardising.

    Returns:
        ``BINS`` shares that add up to 1, and the mean difference between neighbours within a slice, in [0, 1].
    """
    counts = np.zeros(BINS, np.int64)
    steps = pairs = 0.0
    for part in np.moveaxis(image, 1, 0):  # a slice at a time: half precision is widened
        slab = part.astype(np.float32, copy=False)
        bins = np.minimum((slab * BINS).astype(np.intp), BINS - 1)
        counts += np.bincount(bins.ravel(), minlength=BINS)
        for axis in (1, 2):
            differences = np.abs(np.diff(slab, axis=axis))
            steps += float(differences.sum(dtype=np.float64))
            pairs += differences.size
    return (*(counts / max(1, counts.sum())).tolist(), steps / max(1.0, pairs))


def log_volumes(labels: npt.NDArray[np.uint8], spacing: tuple[float, float, float]) -> dict[int, float]:
    """Return label value → natural logarithm of its volume in ml, for the values that occur.

    Args:
        labels: (k, j, i); a single slice has no volume and gives nothing.
        spacing: mm along (i, j, k).
    """
    if labels.shape[0] < 2:
        return {}
    # A slice at a time: NumPy counts in integers of eight times the size.
    counts = np.sum([np.bincount(part.ravel(), minlength=256) for part in labels], axis=0)
    ml = math.prod(spacing) / 1000.0
    return {value: math.log(count * ml) for value, count in enumerate(counts.tolist()) if value and count}


def values_at_the_edge(labels: npt.NDArray[np.uint8]) -> set[int]:
    """Return the values on the outermost voxels of (k, j, i), leaving out directions in which there is one voxel."""
    values: set[int] = set()
    for axis, size in enumerate(labels.shape):
        if size > 1:
            ends = labels.take([0, size - 1], axis=axis)
            values.update(int(value) for value in set(ends.ravel().tolist()))
    return values - {0}


def is_far(value: float, usual: Usual, least_spread: float) -> bool:
    """Return whether ``value`` lies beyond what a further patient's may be."""
    spread = max(usual.deviation[0], least_spread)
    return abs(value - usual.mean[0]) > usual.reach() * spread


def looks_unlike(features: Sequence[float], usual: Usual) -> bool:
    """Return whether an image looks unlike those that ``usual`` is of.

    The measures' distances from the mean, in their own standard deviations, are averaged (root mean square), so that
    one measure that is a little off does not count. The average of so many varies less than each of them, so its limit
    lies nearer by as much as that of a chi-squared variable of so many degrees of freedom does.
    """
    from scipy.special import chdtri

    measures = len(usual.mean)
    nearer = math.sqrt(chdtri(measures, 2 * RARE) / measures / chdtri(1, 2 * RARE))
    spread = np.maximum(usual.deviation, LEAST_LOOK_SPREAD)
    distance = np.sqrt(np.mean(np.square((np.asarray(features) - np.asarray(usual.mean)) / spread)))
    return bool(distance > nearer * usual.reach())
