"""The demonstration from generated patients to the report, with nothing left behind when it is cancelled."""

import time
from dataclasses import dataclass
from pathlib import Path

from FedSegCore.common.files import whole_folder
from FedSegCore.common.progress import Progress
from FedSegCore.demo.patients import UnseenPatient, write_sites, write_unseen
from FedSegCore.demo.report import DemoFacts, SegmentedCase, write_demo_report
from FedSegCore.demo.settings import demo_federation
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.loopback import run_on_loopback
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.inference.segment_file import SegmentOrder, segment_file
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.learning.metrics import case_scores
from FedSegCore.models.signing import load_or_make_key
from FedSegCore.phantoms.torso import ANNOTATED, TORSO_CONTRACT
from FedSegCore.volumes.reading import read_label_map, read_volume

REPORT = "report.html"
RELEASES = "releases"


@dataclass(frozen=True)
class DemoResult:
    """What a demo came to.

    Attributes:
        folder: everything it made.
        seconds: wall time of its stages.
        dice: modality → mean Dice over labels and unseen patients.
    """

    folder: Path
    seconds: dict[str, float]
    dice: dict[str, float]


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now


def run_demo(out: Path, rounds: int, seed: int, progress: Progress) -> DemoResult:
    """Generate patients, train a real federation on loopback, publish, segment unseen patients, write the report.

    Args:
        out: a folder that does not exist; it appears when everything is done.
        rounds: rounds of training.
        seed: of patients and training.
        progress: told of everything; cancelling leaves no process and no file.

    Raises:
        CannotDoHereError: a process cannot be started or kept running.
        CancelledError: cancelled.
    """
    watch = _Stopwatch()
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as folder:
        sites = write_sites(folder / "patients", seed, progress.part(0.0, 0.06))
        unseen = write_unseen(folder / "unseen", seed)
        watch.stage("generating patients")
        config = demo_federation(rounds, seed)
        outcome = run_on_loopback(config, sites, folder / "federation", progress.part(0.06, 0.94))
        watch.stage("federated training")
        key = load_or_make_key(CoordinatorFolder(folder / "federation" / "coordinator").release_key)
        publish_outcome(outcome, folder / RELEASES, key)
        cases = _segment_unseen(folder, unseen, progress.part(0.94, 0.98))
        watch.stage("publishing and segmenting")
        progress.update(0.98, "writing the report")
        write_demo_report(folder / REPORT, DemoFacts(outcome, cases, watch.seconds))
    return DemoResult(out, watch.seconds, {case.modality: case.mean_dice for case in cases})


def _segment_unseen(folder: Path, unseen: list[UnseenPatient], progress: Progress) -> list[SegmentedCase]:
    """Segment through the same function as ``fedseg segment``, and compare what was written with the truth."""
    segmenter = Segmenter("cpu")
    results = folder / "segmentations"
    results.mkdir()
    cases = []
    for number, patient in enumerate(unseen):
        part = progress.part(number / len(unseen), (number + 1) / len(unseen))
        written = results / f"{patient.modality.lower()}.seg.nrrd"
        order = SegmentOrder(patient.files.image, folder / RELEASES, written, modality=patient.modality)
        done = segment_file(segmenter, order, part).told
        image = read_volume(patient.files.image, modality=patient.modality)
        truth, found = read_label_map(patient.files.labels), read_label_map(written)
        scores = case_scores(
            found.array[0],
            truth.array[0],
            image.grid,
            TORSO_CONTRACT,
            ANNOTATED[patient.modality],
            patient.modality,
        )
        cases.append(SegmentedCase(patient.modality, done["release"], done["seconds"], image, truth, found, scores))
    return cases
