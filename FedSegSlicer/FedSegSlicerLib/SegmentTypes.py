"""What the Segment tab's parts tell each other."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .SegmentationResult import ResultRow

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


@dataclass(frozen=True)
class Inspection:
    """What a volume seems to be.

    Attributes:
        modality: DICOM modality code.
        confidence: 0 to 1.
        reason: why, in words.
    """

    modality: str
    confidence: float
    reason: str


@dataclass(frozen=True)
class Release:
    """A model that can be chosen.

    Attributes:
        id: name with version; what is sent to the worker.
        name: without version.
        version: the higher the newer.
        modalities: what it segments.
        labels: the structures it finds.
        sites: how many sites trained it.
        rounds: for how many rounds.
        dice: mean validation Dice over its labels, None if there was no validation.
        isTrusted: it is signed by the coordinator of this computer's site.
        card: what else its card tells, in the worker's words: ``federation``, ``rule``, ``created``, ``signer``,
            ``training_cases``, ``own_models`` (sites scored models of their own), ``scores`` (label, metric, mean,
            standard_deviation, cases).
    """

    id: str
    name: str
    version: int
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    sites: int
    rounds: int
    dice: float | None
    isTrusted: bool = False
    card: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def fromWorker(cls, row: dict[str, Any]) -> "Release":
        """Return the release in the worker's words."""
        scores = [score["mean"] for score in row["scores"] if score["metric"] == "dice"]
        return cls(
            row["id"],
            row["name"],
            row["version"],
            tuple(row["modalities"]),
            tuple(row["labels"]),
            row["sites"],
            row["rounds"],
            sum(scores) / len(scores) if scores else None,
            row["trusted"],
            row,
        )


@dataclass(frozen=True)
class Outcome:
    """A finished segmentation.

    Attributes:
        node: the result in the scene.
        rows: one a structure, with volumes in milliliters.
        release: what segmented it.
        modality: as what.
        device: where.
        seconds: for how long.
        notes: what had to be done differently, in words.
        intensityUnit: of the mean intensities, ``""`` where they have none.
        checks: why the whole result needs a look, in words; what concerns one structure is in its row.
        place: ``ResultPlace.key`` of where it is.
        isTrusted: the release is signed by the coordinator of this computer's site.
        edited: that somebody changed it since, and whether the rows are of what it is now; ``""`` where nobody did.
        isLoaded: it is what a scene says that was loaded, and was not made in this session by this tab.
    """

    node: "vtkMRMLSegmentationNode"
    rows: tuple[ResultRow, ...]
    release: str
    modality: str
    device: str
    seconds: float
    notes: tuple[str, ...]
    intensityUnit: str = ""
    checks: tuple[str, ...] = ()
    place: str = ""
    isTrusted: bool = False
    edited: str = ""
    isLoaded: bool = False


@dataclass(frozen=True)
class Expectation:
    """What earlier runs on this computer say of the next one.

    Attributes:
        runs: how many runs there were with this model on this device.
        seconds: how long it may take, None where there was no run.
        memoryBytes: how much memory it may need, None where there was no run.
        freeBytes: how much memory is free now.
    """

    runs: int
    seconds: float | None
    memoryBytes: int | None
    freeBytes: int

    @classmethod
    def fromWorker(cls, answer: dict[str, Any]) -> "Expectation":
        """Return the expectation in the worker's words."""
        return cls(answer["runs"], answer["seconds"], answer["memory_bytes"], answer["free_bytes"])
