"""Cases that a site could take into its store: generated patients, and the files that its people have of one."""

from datetime import date
from pathlib import Path

from FedSegCore.federation.site.case_intake import CaseOffer
from FedSegCore.federation.site.cohort_index import Consent
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.segmentation_file import write_segmentation
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import write_volume

AGREED = Consent(by="Dr Grey", given=date(2026, 3, 1))


def phantom(seed: int = 0) -> tuple[Volume, Volume]:
    made = make_patient("CT", seed, size="test")
    return made.image, made.labels


def write_given(folder: Path, seed: int = 0) -> None:
    """Write the files of one generated patient, a segmentation as Slicer writes it among them."""
    folder.mkdir()
    image, labels = phantom(seed)
    write_volume(image, folder / "image.nrrd")
    write_segmentation(labels, TORSO_CONTRACT.labels, folder / "labels.seg.nrrd")
    write_volume(labels, folder / "labels.nii.gz")


def offer(given: Path, patient: str = "Doe^Jane", labels: str = "labels.seg.nrrd", **more) -> CaseOffer:
    return CaseOffer(given / "image.nrrd", given / labels, patient, **more)


def contract_toml() -> str:
    lines = []
    for label in TORSO_CONTRACT.labels:
        lines += ["[[contract.labels]]", f'name = "{label.name}"', f"value = {label.value}"]
        for part in ("type", "modifier", "category"):
            term = getattr(label, part)
            if term is not None:
                lines.append(f'{part} = {{ code = "{term.code}", meaning = "{term.meaning}" }}')
        lines.append(f"colour = {list(label.colour)}")
    return "\n".join(lines)
