"""What the See tab's parts tell each other: settings, what to look at, samples and what was found."""

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .VolumeExchange import VolumeSnapshot, knownModality

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

FIRST_SLICES = 5
"""Slices of the first pictures; the whole volume follows."""


class SeeState(enum.Enum):
    """What the logic is doing."""

    IDLE = "idle"
    RUNNING = "running"


@dataclass(frozen=True)
class GinSettings:
    """What is drawn.

    Attributes:
        alphaLow: least share of the random look in the blend, 0 to 1.
        alphaHigh: greatest share.
        layers: convolution layers, 2 to 8.
        kernelSizes: odd sides to draw from.
        perBatch: one look for all samples, differing in its share only.
    """

    alphaLow: float = 0.0
    alphaHigh: float = 1.0
    layers: int = 4
    kernelSizes: tuple[int, ...] = (1, 3)
    perBatch: bool = False

    def toWorker(self) -> dict[str, Any]:
        """Return the settings in the worker's words."""
        return {
            "alpha": [self.alphaLow, self.alphaHigh],
            "layers": self.layers,
            "kernel_sizes": list(self.kernelSizes),
            "per_batch": self.perBatch,
        }


@dataclass(frozen=True)
class Look:
    """What to look at.

    Attributes:
        volume: the image.
        settings: what is drawn.
        samples: how many, 1 to 15.
        seed: the same seed gives the same samples.
        modality: DICOM modality code where the user says it; None: from the series, else detected.
        reference: a real image to compare with, None for none.
        around: RAS mm; the slice through this point comes first. None: a telling one.
    """

    volume: "vtkMRMLScalarVolumeNode"
    settings: GinSettings = GinSettings()
    samples: int = 5
    seed: int = 0
    modality: str | None = None
    reference: "vtkMRMLScalarVolumeNode | None" = None
    around: tuple[float, float, float] | None = None

    def toWorker(self) -> dict[str, Any]:
        """Return what is common to all steps, in the worker's words; images come as files."""
        params = {**self.settings.toWorker(), "seed": self.seed}
        modality = self.modality or knownModality(self.volume)
        if modality is not None:
            params["modality"] = modality
        if self.around is not None:
            right, anterior, superior = self.around
            params["around"] = [-right, -anterior, superior]
        return params

    def steps(self) -> list["Step"]:
        """Return what is asked for in turn: the first slices of all samples, then each as a whole."""
        steps = [Step(0, 1, FIRST_SLICES), Step(1, self.samples - 1, FIRST_SLICES)]
        steps += [Step(index, 1, None) for index in range(self.samples)]
        return [step for step in steps if step.samples > 0]


@dataclass(frozen=True)
class Step:
    """One request: ``samples`` samples from number ``first`` on, of ``slices`` slices; None: the whole volume."""

    first: int
    samples: int
    slices: int | None


@dataclass(frozen=True)
class Sample:
    """One sample and how far it is from the original and from the reference.

    Attributes:
        number: n, from 0.
        alpha: share of the random look.
        histogramDistance: of the shown slice from the original's, in standard deviations.
        correlation: of brightness on the shown slice, -1 to 1; below 0 dark and bright have changed places.
        edges: correlation of edges on the shown slice; near 1 outlines are where they were.
        referenceDistance: of its histogram from the reference's, None without a reference.
        histogram: share of voxels a bin.
        first: k of the first slice that is there.
        isWhole: whether the whole volume is there, not only the first slices.
    """

    number: int
    alpha: float
    histogramDistance: float
    correlation: float
    edges: float
    referenceDistance: float | None
    histogram: list[float]
    first: int
    isWhole: bool


@dataclass(frozen=True)
class Scene:
    """What is there to be looked at.

    Attributes:
        look: what was asked for.
        modality: what the image was taken for.
        confidence: how sure that is, 0 to 1.
        original: voxels and place of the original as a network gets it, maybe only some slices of it.
        first: k of its first slice.
        slices: how many slices the whole has.
        shown: k of the slice the measures are of.
        histogram: the original's.
        referenceHistogram: the reference's, None without one.
        referenceDistance: of the original's histogram from the reference's.
    """

    look: Look
    modality: str
    confidence: float
    original: VolumeSnapshot
    first: int
    slices: int
    shown: int
    histogram: list[float]
    referenceHistogram: list[float] | None
    referenceDistance: float | None
