"""Taking a case in: an image and its labels are read, checked and brought into the federation's terms."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.site.case_checks import ACCEPTABLE, CaseFinding, check_case, voxel_digest
from FedSegCore.federation.site.case_labels import OfferedNaming, match_labels, segments_of
from FedSegCore.federation.site.cohort_index import MOST_PATIENT, CohortIndex, Role
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.modality import SURE, detect_modality
from FedSegCore.volumes.preparation import labels_on
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.volume import Volume


@dataclass(frozen=True)
class CaseOffer:
    """A case that somebody would like to add.

    Attributes:
        image: image file or DICOM folder.
        labels: label map or ``.seg.nrrd`` in the image's geometry.
        patient: the site's id of the patient, without spaces around it; kept in the store's index only.
        modality: DICOM modality code; None takes the file's word, else the store's, else a sure guess.
        naming: what the site calls the federation's labels, beside what the store knows from earlier cases; None for a
            label takes that back.
        role: None follows the patient's other cases, else the default split.
        accept: codes of ``case_checks.ACCEPTABLE`` findings that a person has looked at.
        title: by which a person recognises the case; None takes the image file's name.
    """

    image: Path
    labels: Path
    patient: str
    modality: str | None = None
    naming: OfferedNaming = field(default_factory=dict)
    role: Role | None = None
    accept: Collection[str] = ()
    title: str | None = None

    def __post_init__(self) -> None:
        # "P 1 " is no other patient than "P 1"
        object.__setattr__(self, "patient", self.patient.strip())


@dataclass(frozen=True)
class CheckedCase:
    """An offer as it was read.

    Attributes:
        image: as read, of the cohort's modality.
        labels: contract values on the image's grid.
        annotated: contract values that the case annotates.
        role: what the case would be for.
        sha256: of the image's voxels.
        findings: all findings, those that refuse and are not accepted first.
        accepted: codes of the findings that were accepted.
    """

    image: Volume
    labels: Volume
    annotated: tuple[int, ...]
    role: Role
    sha256: str
    findings: tuple[CaseFinding, ...]
    accepted: tuple[str, ...]

    @property
    def refused(self) -> tuple[CaseFinding, ...]:
        """The findings that keep the case out."""
        return tuple(found for found in self.findings if found.refuses and found.code not in self.accepted)


class CaseRefusedError(BadInputError):
    """A case was not taken into the store; its code is that of the first finding.

    Args:
        findings: what keeps it out.
    """

    def __init__(self, findings: tuple[CaseFinding, ...]) -> None:
        first = findings[0]
        super().__init__(first.code, " ".join(found.words for found in findings), first.remedy)
        self.findings = findings


def check_offer(offer: CaseOffer, index: CohortIndex, contract: LabelContract) -> CheckedCase:
    """Read an offered case and return what is found; nothing is written.

    Args:
        offer: the case.
        index: the store it is offered to.
        contract: the federation's labels.

    Raises:
        BadInputError: a file cannot be read or the labels lie elsewhere (``image.*``, ``labels.*``);
            ``store.patient``: the patient has no id that can be kept.
    """
    if not offer.patient or len(offer.patient) > MOST_PATIENT:
        raise BadInputError(
            "store.patient",
            "A case needs your id of its patient.",
            f"Give one of at most {MOST_PATIENT} letters; it stays in the site's store.",
        )
    image = read_volume(offer.image, modality=offer.modality)
    naming = index.naming_with(offer.naming)
    matched = match_labels(read_label_map(offer.labels), segments_of(offer.labels), contract, naming, offer.naming)
    labels = labels_on(matched.labels, image.grid)
    modality, findings = _modality_of(image, offer.modality or index.modality, index)
    role = index.role_for(offer.patient, offer.role)
    sha256 = voxel_digest(image)
    findings += _against_store(index, role, sha256)
    if modality is not None:
        findings += check_case(image, labels, contract, matched.annotated, modality)
    findings += matched.findings
    accepted = {found.code for found in findings} & ACCEPTABLE & set(offer.accept)
    findings.sort(key=lambda found: not found.refuses or found.code in accepted)
    return CheckedCase(
        image=replace(image, modality=modality),
        labels=labels,
        annotated=matched.annotated,
        role=role or "train",
        sha256=sha256,
        findings=tuple(findings),
        accepted=tuple(sorted(accepted)),
    )


def _modality_of(image: Volume, wanted: str | None, index: CohortIndex) -> tuple[str | None, list[CaseFinding]]:
    """Return the case's modality and what speaks against it; None where nobody can tell."""
    guess = detect_modality(image)
    if wanted is None and guess.confidence < SURE:
        return None, [
            CaseFinding("case.modality-unknown", "It is not known which modality this image is.", "Say the modality.")
        ]
    modality = wanted or guess.modality
    others = {image.modality, index.modality} - {None, modality}
    if others:
        words = (
            f"The case is {modality}, the image or the site's other cases are {', '.join(sorted(map(str, others)))}."
        )
        return modality, [CaseFinding("case.other-modality", words, "A site has cases of one modality.")]
    return modality, []


def _against_store(index: CohortIndex, role: Role | None, sha256: str) -> list[CaseFinding]:
    findings = []
    if any(case.sha256 == sha256 for case in index.cases):
        findings.append(
            CaseFinding(
                "case.duplicate",
                "The same image is in the store already, perhaps under another name.",
                "Remove the other case first to replace it.",
            )
        )
    if role is None:
        findings.append(
            CaseFinding(
                "case.patient-in-both",
                "The patient's other cases, also such as were removed, have the other role (train or validation).",
                "Give all cases of a patient one role.",
            )
        )
    return findings
