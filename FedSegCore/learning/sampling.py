"""Batches of patches: a guaranteed share around foreground, balanced over labels; the rest as the cohort is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from FedSegCore.learning.cohort import PreparedCase

_CENTRES_KEPT = 20_000
"""Foreground voxels remembered per case and label in 3-D: enough to be everywhere, little enough to be cheap."""

Tickets = Callable[[PreparedCase, npt.NDArray[np.uint8]], int]
"""A case and the label map of one of its units → how often that unit is drawn for once of any other."""


@dataclass(frozen=True)
class Batch:
    """Patches on the CPU.

    Attributes:
        images: float32 (N, C, k, j, i) in 3-D, (N, C, j, i) in 2-D, in [0, 1], padded with 0.
        labels: uint8 (N, k, j, i) or (N, j, i), contract values, padded with background.
        annotated: for each patch the contract values its case annotates.
        units: for each patch the number of the unit (slice or case, in the order of the cases) it was cut from.
    """

    images: Tensor
    labels: Tensor
    annotated: tuple[tuple[int, ...], ...]
    units: tuple[int, ...]

    def first(self, count: int) -> "Batch":
        """Return the first ``count`` patches, or all where there are fewer."""
        return Batch(self.images[:count], self.labels[:count], self.annotated[:count], self.units[:count])

    def annotated_mask(self, labels: int) -> Tensor:
        """Return boolean (N, K): whether label c + 1 is annotated in patch n; K is ``labels``."""
        values = range(1, labels + 1)
        return torch.tensor([[value in known for value in values] for known in self.annotated])


class _Deck:
    """Numbers 0..n-1 in random order, shuffled anew when used up: all are seen before one is seen twice."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size, self._rng = size, rng
        self._order: list[int] = []

    def draw(self) -> int:
        if not self._order:
            self._order = self._rng.permutation(self._size).tolist()
        return self._order.pop()


class PatchSampler:
    """Draws batches from prepared cases; the same generator gives the same batches.

    A *unit* is a slice in 2-D and a case in 3-D. Of all patches, exactly ``foreground_fraction`` (rounded down, and
    spread evenly) are centred on a voxel of a label, where labels take turns in random order and each label's units
    too; the others come from all units in turn, at a random place, so that they keep the natural ratio. Stratified
    batches have no such centres: each holds units with and without a label, at least one of each, and their numbers
    are on average the cohort's (where that leaves at least one of each).

    Args:
        cases: the training cases, at least one.
        dimensions: 2 or 3.
        patch_size: (k, j, i) voxels; k is 1 in 2-D. Where an image is smaller it is padded on both sides alike, as the
            sliding window does at inference; where it is larger the patch is moved inside.
        foreground_fraction: share in [0, 1].
        times: how often a unit comes up for once of any other; all alike if None.
        stratified: see above; ``foreground_fraction`` is not used then.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        dimensions: int,
        patch_size: tuple[int, int, int],
        foreground_fraction: float,
        times: Tickets | None = None,
        *,
        stratified: bool = False,
    ) -> None:
        self._cases, self._dimensions, self._fraction = cases, dimensions, foreground_fraction
        self._patch = patch_size if dimensions == 3 else (1, *patch_size[1:])
        self._times = times
        self._stratified = stratified
        self._units: list[tuple[int, int]] = []
        self._tickets: list[int] = []
        self._holding: dict[int, list[int]] = {}
        self._centres: dict[tuple[int, int], npt.NDArray[np.int32]] = {}
        for number, case in enumerate(cases):
            self._index(number, case)
        self._labels = sorted(self._holding)

    @property
    def units(self) -> int:
        """Number of slices (2-D) or cases (3-D)."""
        return len(self._units)

    def batches(self, count: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield ``count`` batches, each drawn when it is asked for; ``generator`` (CPU) is advanced once."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        draw = self._stratified_units if self._stratified else self._units_and_values
        for chosen in draw(count, batch_size, rng):
            patches = [(*self._cut(unit, value, rng), unit) for unit, value in chosen]
            images, labels, annotated, units = zip(*patches, strict=True)
            yield Batch(torch.stack(images), torch.stack(labels), annotated, units)

    def _units_and_values(
        self, count: int, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Iterator[tuple[int, int]]]:
        """Yield per batch (unit, contract value to centre on, or 0 for anywhere)."""
        anywhere, label = _Deck(len(self._tickets), rng), _Deck(len(self._labels), rng)
        of_label = {value: _Deck(len(units), rng) for value, units in self._holding.items()}
        due = self._foreground_due()

        def one() -> tuple[int, int]:
            if len(self._labels) > 0 and next(due):
                value = self._labels[label.draw()]
                return self._holding[value][of_label[value].draw()], value
            return self._tickets[anywhere.draw()], 0

        for _ in range(count):
            yield (one() for _ in range(batch_size))

    def _stratified_units(
        self, count: int, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Iterator[tuple[int, int]]]:
        """Yield per batch (unit, 0), of both kinds of units where there are both and the batch has room for them."""
        holding = sorted({unit for units in self._holding.values() for unit in units})
        empty = sorted(set(range(len(self._units))) - set(holding))
        with_label, without = _Deck(len(holding), rng), _Deck(len(empty), rng)
        expected = batch_size * len(holding) / len(self._units)
        for _ in range(count):
            wanted = int(expected) + int(rng.random() < expected - int(expected))
            if holding and empty and batch_size > 1:
                wanted = min(max(wanted, 1), batch_size - 1)
            kinds = rng.permutation(batch_size) < wanted
            yield ((holding[with_label.draw()] if kind else empty[without.draw()], 0) for kind in kinds)

    def _foreground_due(self) -> Iterator[bool]:
        """Yield for each patch whether it takes the foreground share to its next whole number."""
        drawn = before = 0
        while True:
            drawn += 1
            # The small term keeps 0.7 * 10 from being 6.999.
            now = int(drawn * self._fraction + 1e-9)
            yield now > before
            before = now

    def _index(self, number: int, case: PreparedCase) -> None:
        slices = range(len(case.labels)) if self._dimensions == 2 else (-1,)
        for k in slices:
            unit = len(self._units)
            self._units.append((number, k))
            labels = case.labels if k < 0 else case.labels[k]
            tickets = [unit] * (self._times(case, labels) if self._times else 1)
            self._tickets += tickets
            counts = np.bincount(labels.reshape(-1), minlength=256)
            for value in np.flatnonzero(counts[1:]) + 1:
                self._holding.setdefault(int(value), []).extend(tickets)
        if self._dimensions == 3:
            for label in case.annotated:
                self._centres[number, label] = _spread(np.flatnonzero(case.labels == label), _CENTRES_KEPT)

    def _cut(self, unit: int, value: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return image, labels and annotation of one patch; ``value`` 0 means anywhere."""
        number, k = self._units[unit]
        case = self._cases[number]
        shape = case.labels.shape
        centre = self._centre(number, k, value, rng) if value else None
        first = [
            _start(size, patch, None if centre is None else centre[axis], rng)
            for axis, (size, patch) in enumerate(zip(shape, self._patch, strict=True))
        ]
        if k >= 0:
            first[0] = k
        window = tuple(slice(max(0, a), min(n, a + p)) for a, n, p in zip(first, shape, self._patch, strict=True))
        image, labels = case.image[(slice(None), *window)], case.labels[window]
        if labels.shape != self._patch:
            pads = [
                (max(0, -a), p - max(0, -a) - got) for a, p, got in zip(first, self._patch, labels.shape, strict=True)
            ]
            image, labels = np.pad(image, [(0, 0), *pads]), np.pad(labels, pads)
        if k >= 0:
            image, labels = image[:, 0], labels[0]
        return torch.from_numpy(image.astype(np.float32)), torch.from_numpy(labels.copy()), case.annotated

    def _centre(self, number: int, k: int, value: int, rng: np.random.Generator) -> tuple[int, ...]:
        labels = self._cases[number].labels
        inside = self._centres[number, value] if k < 0 else np.flatnonzero(labels[k] == value) + k * labels[0].size
        return tuple(int(n) for n in np.unravel_index(inside[rng.integers(len(inside))], labels.shape))


def _spread(indices: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int32]:
    """Return at most ``most`` of the ascending flat ``indices``, evenly spread."""
    step = max(1, -(-len(indices) // most))
    return indices[::step].astype(np.int32)


def _start(size: int, patch: int, centre: int | None, rng: np.random.Generator) -> int:
    """Return where a patch begins along an axis; negative where it is padded."""
    if size <= patch:
        return -((patch - size) // 2)
    if centre is None:
        return int(rng.integers(size - patch + 1))
    return min(max(centre - patch // 2, 0), size - patch)
