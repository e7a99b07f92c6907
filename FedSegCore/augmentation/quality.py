"""Samples of GIN to be looked at before it is trusted, with plain measures of what changed; see ``quality_picture``."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import wasserstein_distance

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.progress import Progress
from FedSegCore.volumes.pixels import evenly_spread

Slice = npt.NDArray[np.float32]
_MOST_VALUES = 100_000

HISTOGRAM_EDGES = tuple(-4.0 + 0.125 * step for step in range(65))
"""Edges of the 64 bins of ``look_histogram``, in standard deviations from the mean."""


@dataclass(frozen=True)
class GinSample:
    """One sample of GIN on one slice.

    Attributes:
        number: n of ``sample_generator(seed, n)``.
        slice: float32 (c, j, i), not clipped; the network sees it standardised.
        parameters: of one image; ``apply_gin`` makes the sample again.
        histogram_distance: Wasserstein distance between the standardised intensities of original and sample, in
            standard deviations; 0 is no change of look.
        correlation: Pearson's r of intensities, -1 to 1; below 0 dark and bright have changed places.
        edges: Pearson's r of gradient magnitudes, -1 to 1; near 1 the anatomy's outlines are where they were. All three
            are of the slice without its rim.
    """

    number: int
    slice: Slice
    parameters: GinParameters
    histogram_distance: float
    correlation: float
    edges: float

    @property
    def alpha(self) -> float:
        """Blend weight; 0 where the sample was left as it is."""
        return float(self.parameters.alpha[0]) if bool(self.parameters.applied[0]) else 0.0


@dataclass(frozen=True)
class GinSamples:
    """An image's slice and what GIN makes of it.

    Attributes:
        original: float32 (c, j, i) in [0, 1], as prepared for the network.
        slice_index: k of the slice.
        aspect: height of a pixel over its width.
        seed: S of ``sample_generator(S, n)``.
        samples: in order of their number.
    """

    original: Slice
    slice_index: int
    aspect: float
    seed: int
    samples: tuple[GinSample, ...]


def representative_slice(image: npt.NDArray[np.float32]) -> int:
    """Return the k, in the middle half of an image (c, k, j, i), whose slice has most voxels above the image's mean."""
    count = image.shape[1]
    body = (image > image.mean()).sum(axis=(0, 2, 3))
    first, last = count // 4, count - count // 4
    return first + int(np.argmax(body[first:last]))


def gin_samples(
    image: npt.NDArray[np.float32],
    config: GinConfig,
    *,
    samples: int,
    seed: int,
    dimensions: int = 3,
    slice_index: int | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    progress: Progress | None = None,
) -> GinSamples:
    """Return N samples of GIN on one slice of a prepared image.

    Args:
        image: float32 (c, k, j, i) in [0, 1] (``volumes.preparation.Prepared.image``).
        config: what is drawn.
        samples: how many, N.
        seed: sample n is drawn by ``sample_generator(seed, n)``, n = 0 .. N - 1, whatever N is.
        dimensions: 3 augments the whole volume and shows a slice of it; 2 augments the slice alone.
        slice_index: k; None chooses a representative slice.
        spacing: mm along (i, j, k), for the picture's proportions.
        progress: told of every sample.

    Raises:
        ValueError: ``slice_index`` is outside the image.
        CancelledError: the user cancelled.
    """
    index = representative_slice(image) if slice_index is None else slice_index
    if not 0 <= index < image.shape[1]:
        raise ValueError(f"slice {index} is not among the image's {image.shape[1]}")
    progress = progress or Progress()
    original = np.ascontiguousarray(image[:, index])
    source = torch.from_numpy(np.ascontiguousarray(image) if dimensions == 3 else original).unsqueeze(0)
    drawn = []
    for number in range(samples):
        progress.update(number / samples, f"sample {number + 1} of {samples}")
        parameters = draw_gin(config, image.shape[0], 1, dimensions, sample_generator(seed, number))
        result = apply_gin(source, parameters)[0].numpy()
        changed = np.ascontiguousarray(result[:, index] if dimensions == 3 else result)
        values = measures(interior(original, parameters), interior(changed, parameters))
        drawn.append(GinSample(number, changed, parameters, *values))
    progress.update(1.0, "done")
    return GinSamples(original, index, spacing[1] / spacing[0], seed, tuple(drawn))


def interior(image: Slice, parameters: GinParameters) -> Slice:
    """Return an image (..., j, i) without the in-plane rim where the padding's zeros show; all of one without a middle.

    The rim is part of GIN, but its few voxels can be far from all others and would rule measures and windows.
    """
    rim = parameters.reach
    middle = image[..., rim : image.shape[-2] - rim, rim : image.shape[-1] - rim]
    return middle if min(middle.shape[-2:]) > 1 else image


def look_of(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return at most 100 000 evenly spread values of an image of any shape, standardised as a network sees them."""
    return _standardised(evenly_spread(image, _MOST_VALUES))


def look_distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return the Wasserstein distance of two looks (``look_of``), in standard deviations; 0: equal histograms."""
    return float(wasserstein_distance(one, other))


def look_histogram(look: npt.NDArray[np.float64]) -> list[float]:
    """Return the share of a look's values in each bin of ``HISTOGRAM_EDGES``; what lies beyond counts at the ends."""
    inside = np.clip(look, HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1])
    counts, _ = np.histogram(inside, HISTOGRAM_EDGES)
    return [float(share) for share in counts / max(1, look.size)]


def measures(before: Slice, after: Slice) -> tuple[float, float, float]:
    """Return histogram distance, correlation of intensities and of edges of two slices (c, j, i) (``GinSample``).

    Correlations are 0 where a slice is uniform.
    """
    one, two = _standardised(before), _standardised(after)
    step = -(-one.size // _MOST_VALUES)
    distance = float(wasserstein_distance(one.ravel()[::step], two.ravel()[::step]))
    edges = [_standardised(_gradient(image)) for image in (before, after)]
    return distance, float((one * two).mean()), float((edges[0] * edges[1]).mean())


def _standardised(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    centred = image.astype(np.float64) - image.mean(dtype=np.float64)
    deviation = centred.std()
    return centred / deviation if deviation > 0 else centred


def _gradient(image: Slice) -> npt.NDArray[np.float64]:
    axes = [axis for axis in (1, 2) if image.shape[axis] > 1]
    parts = [np.gradient(image.astype(np.float64), axis=axis) for axis in axes]
    return np.sqrt(sum((part**2 for part in parts), np.zeros(image.shape)))
