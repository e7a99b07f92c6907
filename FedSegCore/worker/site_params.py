"""What the methods of the module's Federation tab take."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictInt

from FedSegCore.worker.methods import Modality, Params

CaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Words = Annotated[str, Field(min_length=1, max_length=256)]
Day = date | None
Naming = dict[str, tuple[Words, ...] | Literal["not annotated"] | None]


class SiteParams(Params):
    """A site.

    Attributes:
        site: its folder.
    """

    site: Path


class InvitationParams(Params):
    """An invitation to read.

    Attributes:
        invitation: the file that the coordinator sent.
    """

    invitation: Path


class JoinParams(SiteParams, InvitationParams):
    """How to join, see ``site.joining.join``.

    Attributes:
        name: the site's name in the federation.
        coordinator_fingerprint: as it was read out; None: not compared.
        new_key: of a site that was shut out and may come back.
    """

    name: str = Field(max_length=100)
    coordinator_fingerprint: str | None = Field(default=None, max_length=100)
    new_key: bool = False


class CheckParams(SiteParams):
    """A check of everything a site needs.

    Attributes:
        timeout_s: how long to wait for each connection.
    """

    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0


class CaseParams(SiteParams):
    """One case of the store.

    Attributes:
        case: its id.
    """

    case: CaseId


class ConsentParams(CaseParams):
    """Consent to train on a case.

    Attributes:
        by: who gave or recorded it.
        given: the day; None: today.
    """

    by: Words
    given: Day = None


class OfferParams(SiteParams):
    """A case to check, see ``site.case_intake.CaseOffer``.

    Attributes:
        image: the image.
        labels: its segmentation.
        patient: the site's id of the patient.
        title: by which people recognise the case.
        modality: DICOM modality code where people say it.
        naming: contract label to the site's own segments, or ``"not annotated"``; None takes back what was said before.
        accept: codes of findings that a person accepts.
    """

    image: Path
    labels: Path
    patient: Words
    title: str | None = Field(default=None, max_length=512)
    modality: Modality | None = None
    naming: Naming = Field(default_factory=dict)
    accept: tuple[Words, ...] = ()


class AddParams(OfferParams):
    """A case to add.

    Attributes:
        consent_by: who consents to training on it; None: it waits.
        consent_given: the day; None: today.
    """

    consent_by: Words | None = None
    consent_given: Day = None


class FolderParams(SiteParams):
    """A folder of images and segmentations to add.

    Attributes:
        folder: the folder; see ``site.case_folder``.
        modality: DICOM modality code where people say it.
        naming: as of one case.
        consent_by: who consents to training on all of them; None: they wait.
        consent_given: the day; None: today.
    """

    folder: Path
    modality: Modality | None = None
    naming: Naming = Field(default_factory=dict)
    consent_by: Words | None = None
    consent_given: Day = None


class ControlParams(SiteParams):
    """What a site shall do, see ``site.control``.

    Attributes:
        what: ``"set"`` changes ``settings`` only.
        settings: hours, cores_free, device; only what is given is changed.
    """

    what: Literal["pause", "resume", "leave", "forget", "set"]
    settings: dict[Literal["hours", "cores_free", "device"], str | int | None] = Field(default_factory=dict)


class JournalParams(SiteParams):
    """Which part of the journal.

    Attributes:
        only_left: only the kinds of ``site.journal_words.LEFT``.
        last: so many of these entries from the end.
    """

    only_left: bool = False
    last: Annotated[StrictInt, Field(ge=1, le=10_000)] = 500


class ImportParams(SiteParams):
    """A release that came as a file.

    Attributes:
        source: the zip or folder that the coordinator exported.
        releases: the folder of releases to put it into.
    """

    source: Path
    releases: Path
