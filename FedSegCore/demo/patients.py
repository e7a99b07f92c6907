"""The demo's hospitals and their generated patients, written as the files a real site would have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from FedSegCore.common.files import write_json
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.loopback import SiteSpec
from FedSegCore.phantoms.patient_files import PatientFiles, write_patient
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.labels import NOT_ANNOTATED

SITES = (("ct-north", "CT"), ("ct-south", "CT"), ("mr-east", "MR"), ("mr-west", "MR"), ("us-harbour", "US"))
"""Site name and modality."""

TRAINING_PATIENTS = {"CT": 6, "MR": 6, "US": 40}
VALIDATION_PATIENTS = {"CT": 1, "MR": 1, "US": 4}
UNSEEN_PATIENTS = {"CT": 1, "MR": 1, "US": 1}


@dataclass(frozen=True)
class UnseenPatient:
    """A patient of no site, to try the releases on."""

    modality: str
    files: PatientFiles


def write_sites(folder: Path, seed: int, progress: Progress) -> list[SiteSpec]:
    """Generate every site's patients below ``folder`` with their cohort files; no two patients share a seed."""
    sites = []
    for number, (name, modality) in enumerate(SITES):
        part = progress.part(number / len(SITES), (number + 1) / len(SITES))
        sites.append(SiteSpec(name, _write_site(folder / name, modality, seed * 100_000 + number * 1000, part)))
    return sites


def write_unseen(folder: Path, seed: int) -> list[UnseenPatient]:
    """Generate the patients no site has."""
    first = seed * 100_000 + 90_000
    return [
        UnseenPatient(modality, write_patient(folder, f"{modality.lower()}-{n}", make_patient(modality, first + n)))
        for modality, count in UNSEEN_PATIENTS.items()
        for n in range(count)
    ]


def _write_site(folder: Path, modality: str, first_seed: int, progress: Progress) -> Path:
    training, validation = TRAINING_PATIENTS[modality], VALIDATION_PATIENTS[modality]
    cases = []
    annotated: Sequence[int] = ()
    for n in range(training + validation):
        progress.update(n / (training + validation), f"generating patients of {folder.name}")
        phantom = make_patient(modality, first_seed + n)
        annotated = phantom.annotated
        files = write_patient(folder, f"case-{n:02}", phantom)
        role = "train" if n < training else "validation"
        cases.append(
            {
                "case": f"case-{n:02}",
                "patient": f"patient-{n:02}",
                "image": files.image.name,
                "labels": files.labels.name,
                "role": role,
            }
        )
    mapping = {
        label.name: [label.value] if label.value in annotated else NOT_ANNOTATED for label in TORSO_CONTRACT.labels
    }
    cohort = folder / "cohort.json"
    write_json(cohort, {"modality": modality, "mapping": {"values": mapping}, "cases": cases})
    return cohort
