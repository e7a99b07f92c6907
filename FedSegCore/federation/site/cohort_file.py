"""The cohort file: which cases of a site take part, read and checked before anything is trained."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import without_bom
from FedSegCore.common.progress import Progress
from FedSegCore.common.validation import Location, problems_of
from FedSegCore.learning.case import CaseOnDisk, TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.volumes.labels import LabelContract, SiteLabelMapping
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.reading import read_label_map, read_volume

Pseudonym = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class CohortCase(BaseModel):
    """One case.

    Attributes:
        case: id inside the site; what journals and messages show, so never a patient's name.
        patient: pseudonym by which the split keeps a patient's cases together.
        image: image file; relative paths start at the cohort file's folder.
        labels: label map on the image's grid, likewise.
        role: trained on, or only scored on.
        mapping: how this case's numbers become the federation's labels; None uses the cohort's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Pseudonym
    patient: Pseudonym
    image: Path
    labels: Path
    role: Literal["train", "validation"] = "train"
    mapping: SiteLabelMapping | None = None


class CohortDescription(BaseModel):
    """A cohort file.

    Attributes:
        modality: DICOM modality code of all cases.
        mapping: how the site's numbers become the federation's labels; None: they are the contract's numbers.
        cases: the cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]
    mapping: SiteLabelMapping | None = None
    cases: Annotated[tuple[CohortCase, ...], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _cases_differ(self) -> Self:
        twice = [case for case, count in Counter(entry.case for entry in self.cases).items() if count > 1]
        if twice:
            raise ValueError(f"case ids must differ: {', '.join(twice[:5])}")
        if not any(entry.role == "train" for entry in self.cases):
            raise ValueError("at least one case must have the role train")
        both = self.patients("train") & self.patients("validation")
        if both:
            raise ValueError(f"{len(both)} patient(s) are in both train and validation")
        return self

    def patients(self, role: Literal["train", "validation"]) -> set[str]:
        """Return the pseudonyms of the patients whose cases have ``role``."""
        return {entry.patient for entry in self.cases if entry.role == role}

    def count(self, role: Literal["train", "validation"]) -> int:
        """Return the number of cases with ``role``."""
        return sum(entry.role == role for entry in self.cases)


def read_cohort_file(path: Path) -> CohortDescription:
    """Read and check a cohort file (JSON); the images are not opened.

    Raises:
        BadInputError: ``cohort.none``, ``cohort.unreadable`` or ``cohort.invalid``, naming the wrong entries.
    """
    try:
        return CohortDescription.model_validate_json(without_bom(path.read_bytes()))
    except FileNotFoundError as error:
        raise BadInputError(
            "cohort.none",
            "The site has no case to train on.",
            "Add cases, and note the consent to train on them.",
        ) from error
    except OSError as error:
        raise BadInputError(
            "cohort.unreadable", "The cohort file cannot be read.", "Choose the cohort again."
        ) from error
    except ValidationError as error:
        problems = problems_of(error, 5, _place)
        raise BadInputError(
            "cohort.invalid", f"The cohort file is wrong: {problems}.", "Correct the named entries."
        ) from error


def _place(location: Location) -> str:
    """Return where an entry stands; names that are none of ours, which may be anybody's, as ``…``."""
    known = {*CohortDescription.model_fields, *CohortCase.model_fields, *SiteLabelMapping.model_fields}
    return ".".join(str(part) if isinstance(part, int) or part in known else "…" for part in location) or "file"


def load_cohort(
    path: Path, preprocessing: Preprocessing, contract: LabelContract, progress: Progress | None = None
) -> Cohort:
    """Read all cases of a cohort file and prepare them; cases that cannot be used are set aside with a reason.

    Raises:
        BadInputError: the file cannot be used, or the federation prepares another modality than the cohort's.
    """
    description = read_cohort_file(path)
    if description.modality != preprocessing.modality:
        raise BadInputError(
            "cohort.other-modality",
            f"The cohort is {description.modality}, the task is for {preprocessing.modality}.",
            "The site belongs in another group.",
        )

    def sources(role: str) -> list[CaseOnDisk]:
        return [_source(entry, description, path.parent, contract) for entry in description.cases if entry.role == role]

    return Cohort.prepare(sources("train"), sources("validation"), preprocessing, contract, progress)


def _source(entry: CohortCase, description: CohortDescription, base: Path, contract: LabelContract) -> CaseOnDisk:
    def read() -> TrainingCase:
        mapping = entry.mapping or description.mapping or SiteLabelMapping.identity(contract)
        annotated = _annotated(mapping, contract)
        image = read_volume(base / entry.image, modality=description.modality)
        labels = read_label_map(base / entry.labels)
        return TrainingCase(
            entry.case,
            entry.patient,
            image,
            labels.with_array(mapping.apply(labels.array, contract)),
            annotated,
        )

    return CaseOnDisk(entry.case, entry.patient, read)


def _annotated(mapping: SiteLabelMapping, contract: LabelContract) -> tuple[int, ...]:
    try:
        return mapping.annotated(contract)
    except KeyError as error:
        raise BadInputError(
            "cohort.label-unmapped",
            f"The site's mapping says nothing of the label {error}.",
            "Give its numbers, or 'not annotated'.",
        ) from error
