"""The images of an experiment: from a data set's manifest to training, validation and test cases, split by patient."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import ExperimentConfig, ExperimentSite
from FedSegCore.learning.case import TrainingCase
from FedSegCore.volumes.labels import LabelContract, SiteLabelMapping
from FedSegCore.volumes.reading import read_label_map, read_volume


@dataclass(frozen=True)
class SiteCases:
    """One site's cases; no patient is in more than one of the three parts, each in the order of its patients."""

    name: str
    modality: str
    training: tuple[TrainingCase, ...]
    validation: tuple[TrainingCase, ...]
    test: tuple[TrainingCase, ...]

    def rotated(self, turns: int) -> "SiteCases":
        """Return the same cases and sizes of parts, with other patients tested: everybody moves on ``turns`` times by
        as many patients as are tested, the last ones to the front."""
        cases: dict[str, list[TrainingCase]] = {}
        for case in (*self.training, *self.validation, *self.test):
            cases.setdefault(case.patient, []).append(case)
        patients = list(cases)
        tested, scored = (len({case.patient for case in part}) for part in (self.test, self.validation))
        shift = turns * tested % len(patients)
        moved = patients[len(patients) - shift :] + patients[: len(patients) - shift]
        cut = len(moved) - tested - scored
        parts = (moved[:cut], moved[cut : cut + scored], moved[cut + scored :])
        return SiteCases(
            self.name, self.modality, *(tuple(case for patient in part for case in cases[patient]) for part in parts)
        )


def read_site(site: ExperimentSite, contract: LabelContract, data_root: Path) -> SiteCases:
    """Read the images of one site and split them by patient, in the manifest's sorted order.

    Raises:
        BadInputError: the data set is absent, has too few patients, or an image cannot be read.
    """
    folder = data_root / site.dataset
    rows = _rows_by_patient(folder / "manifest.csv", site)
    patients = list(rows)[slice(*site.patients)]
    held_out = site.test_patients + site.validation_patients
    if len(patients) <= held_out:
        raise BadInputError(
            "experiment.too-few-patients",
            f"Site {site.name} has {len(patients)} patients, of which {held_out} are held out.",
            "Give the site more patients or hold out fewer.",
        )
    cut = len(patients) - held_out
    parts = (patients[:cut], patients[cut : cut + site.validation_patients], patients[cut + site.validation_patients :])
    return SiteCases(site.name, site.modality, *(_read_part(part, rows, folder, site, contract) for part in parts))


def read_sites(config: ExperimentConfig, data_root: Path) -> list[SiteCases]:
    """Read all sites of an experiment; raises BadInputError where two sites share a patient."""
    contract = config.contract()
    seen: dict[tuple[str, str], str] = {}
    sites = []
    for site in config.sites:
        cases = read_site(site, contract, data_root)
        for case in (*cases.training, *cases.validation, *cases.test):
            owner = seen.setdefault((site.dataset, case.patient), site.name)
            if owner != site.name:
                raise BadInputError(
                    "experiment.patient-twice",
                    f"Sites {owner} and {site.name} hold the same patient.",
                    "Give the sites disjoint ranges of patients.",
                )
        sites.append(cases)
    return sites


def _rows_by_patient(manifest: Path, site: ExperimentSite) -> dict[str, list[dict[str, str]]]:
    if not manifest.is_file():
        raise BadInputError(
            "experiment.data-absent",
            f"The data set {site.dataset} is not under the data folder.",
            "Give the folder of the data sets with --data.",
        )
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not site.source_sites or row["site"] in site.source_sites]
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: row["case"]):
        patient = _patient(row, site)
        grouped.setdefault(patient, []).append(row | {"patient": patient})
    return grouped


def _patient(row: Mapping[str, str], site: ExperimentSite) -> str:
    if site.patient_pattern is None:
        return row["patient"]
    found = re.match(site.patient_pattern, row["patient"])
    if found is None:
        raise BadInputError(
            "experiment.patient-pattern",
            f"Site {site.name}: patient_pattern does not match all patients of {site.dataset}.",
            "Correct the pattern, or leave it out to take the patients as they are listed.",
        )
    return found.group()


def _read_part(
    patients: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, str]]],
    folder: Path,
    site: ExperimentSite,
    contract: LabelContract,
) -> tuple[TrainingCase, ...]:
    cases = (_read_case(row, folder, site, contract) for patient in patients for row in rows[patient])
    return tuple(case for case in cases if not site.skip_empty or case.labels.array.any())


def _read_case(row: Mapping[str, str], folder: Path, site: ExperimentSite, contract: LabelContract) -> TrainingCase:
    # Colour is kept for endoscopy only: a channel is chosen before the image is called what it is.
    image = read_volume(folder / row["image"], modality=None if site.channel is not None else site.modality)
    own_labels = read_label_map(folder / row["mask"])
    if site.channel is not None:
        image = replace(image, array=image.array[site.channel : site.channel + 1], modality=site.modality)
    slope, intercept = site.rescale
    if (slope, intercept) != (1.0, 0.0):
        image = image.with_array(image.array.astype(np.float32) * np.float32(slope) + np.float32(intercept))
    mapping = SiteLabelMapping(values=site.mapping)
    labels = own_labels.with_array(mapping.apply(own_labels.array, contract))
    return TrainingCase(row["case"], row["patient"], image, labels, mapping.annotated(contract))
