"""Data sets of generated patients, laid out as experiments read them."""

import csv
from pathlib import Path

from FedSegCore.phantoms.patient_files import write_patient
from FedSegCore.phantoms.torso import make_patient

MANIFEST_HEAD = ["case", "image", "mask", "site", "patient", "labels_present", "note"]


def write_data_set(folder: Path, modality: str, prefix: str, first_seed: int, patients: int = 5) -> None:
    """Write ``patients`` cases ``<prefix>0``, ``<prefix>1``, … of patients ``p-<case>`` and their manifest."""
    rows = []
    for n in range(patients):
        name = f"{prefix}{n}"
        files = write_patient(folder, name, make_patient(modality, first_seed + n, size="test"))
        rows.append([name, files.image.name, files.labels.name, "here", f"p-{name}", "", ""])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([MANIFEST_HEAD, *rows])
