"""What the Federation tab's parts tell each other; every rule behind it is the core's, in the worker."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

NOT_ANNOTATED = "not annotated"
"""The core's word for a structure that a case does not outline."""


@dataclass(frozen=True)
class CaseOffer:
    """A case of the scene that somebody would like to add.

    Attributes:
        volume: the image.
        segmentation: its segmentation.
        patient: the site's own id of the patient; stays in the site's store and never gets into the scene.
        modality: DICOM modality code where the user says it.
        naming: federation's structure to the user's segments, or to ``NOT_ANNOTATED``; None takes back what the site
            said for earlier cases, which else holds; others by code or name.
        accept: codes of findings that the user accepts.
    """

    volume: "vtkMRMLScalarVolumeNode | None"
    segmentation: "vtkMRMLSegmentationNode | None"
    patient: str
    modality: str | None = None
    naming: dict[str, Any] = field(default_factory=dict)
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteFacts:
    """How the site stands, as the worker told it (``site.state``).

    Attributes:
        state: ``"not-a-member"``, ``"training"`` ... for the tab's own logic.
        words: one sentence.
        remedy: what to do, maybe ``""``.
        code: of a problem, or ``""``.
        isRunning: whether the site's processes are there.
        round: the round in training or the last one.
        rounds: rounds planned.
        fraction: done of the round, 0 to 1.
        setAside: cases that could not be used.
        lastMessage: seconds since the epoch, None before the first.
        member: name, federation, fingerprints, settings, rounds; None as long as there is no site.
        journalChanged: when the journal was last added to, nanoseconds since the epoch; 0 where there is none.
    """

    state: str
    words: str
    remedy: str
    code: str
    isRunning: bool
    round: int
    rounds: int
    fraction: float
    setAside: int
    lastMessage: float | None
    member: dict[str, Any] | None
    journalChanged: int

    @property
    def isShutOut(self) -> bool:
        """Whether the coordinator shut the site out; a new invitation and a new key bring it back."""
        return self.code == "site.expelled"

    @property
    def isOut(self) -> bool:
        """Whether the site takes part no more, of its own will or not."""
        return self.state == "left" or self.isShutOut

    @property
    def hasJournal(self) -> bool:
        """Whether there is a journal to read, or should be one: it outlives the site."""
        return self.member is not None or self.journalChanged > 0

    @classmethod
    def fromWorker(cls, told: dict[str, Any]) -> "SiteFacts":
        """Return what the worker told."""
        return cls(
            told["state"],
            told["words"],
            told["remedy"],
            told["code"],
            told["running"],
            told["round_number"],
            told["rounds"],
            told["fraction"],
            told["set_aside"],
            told["last_message"],
            told["member"],
            told["journal_changed"],
        )


def consentOf(by: str, day: str) -> dict[str, str]:
    """Return what the worker is told of a consent: nothing where nobody gave one, the day where it is said."""
    if not by.strip():
        return {}
    return {"consent_by": by.strip(), **({"consent_given": day} if day else {})}
