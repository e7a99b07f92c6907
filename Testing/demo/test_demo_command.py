"""``fedseg demo`` in its own process: a real federation of five sites, its releases, report and cancellation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from FedSegCore.common.progress import Progress
from FedSegCore.demo.patients import SITES, TRAINING_PATIENTS, VALIDATION_PATIENTS, write_sites
from FedSegCore.demo.settings import demo_federation
from FedSegCore.federation.site.cohort_file import read_cohort_file
from FedSegCore.models.release import list_releases
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.segmentation_file import read_segments

pytestmark = pytest.mark.slow


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "FedSegCore.cli.main", *map(str, arguments)]


def processes_speaking_of(folder: Path) -> list[str]:
    """Return command lines that name ``folder``'s parent, whatever the demo calls its working folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder.parent) in line and process.pid != os.getpid():
            found.append(line)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, dict]:
    """One short demo: a single round, hence no claim about how good its models are."""
    folder = tmp_path_factory.mktemp("demo") / "first"
    done = subprocess.run(
        command("demo", "--out", folder, "--rounds", 1, "--seed", 3, "--json"),
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert processes_speaking_of(folder) == []
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_every_modality_has_a_verified_release_of_its_sites(demo):
    folder, told = demo
    assert Path(told["releases"]) == folder / "releases"
    cards = {release.id: release.card for release in list_releases(folder / "releases")}
    assert sorted(cards) == ["demo-CT-v1", "demo-MR-v1", "demo-US-v1"]
    for modality in ("CT", "MR", "US"):
        card = cards[f"demo-{modality}-v1"]
        assert [site.site for site in card.sites] == [name for name, kind in SITES if kind == modality]
        assert [site.rounds_answered for site in card.sites] == [1] * len(card.sites)
        assert (card.rule, card.rounds) == ("flames", 1)
        assert card.scores
    # nobody can annotate spleen and left kidney in the ultrasound picture
    assert cards["demo-US-v1"].trained_labels == ("liver", "right kidney", "lesion")


def test_unseen_patients_are_segmented_on_their_own_grid(demo):
    folder, told = demo
    for modality in ("CT", "MR", "US"):
        image = read_volume(folder / "unseen" / f"{modality.lower()}-0.nrrd", modality=modality)
        written = folder / "segmentations" / f"{modality.lower()}.seg.nrrd"
        assert read_label_map(written).grid.close_to(image.grid)
        assert len(read_segments(written)) == (3 if modality == "US" else 5)
        assert 0.0 <= told["dice"][modality] <= 1.0


def test_segmenting_the_same_file_by_command_gives_the_same_voxels(demo, fedseg, tmp_path):
    folder, _ = demo
    for modality in ("CT", "MR"):
        image, out = folder / "unseen" / f"{modality.lower()}-0.nrrd", tmp_path / f"{modality}.seg.nrrd"
        done = fedseg("segment", image, "--releases", folder / "releases", "--out", out, "--modality", modality,
                      "--device", "cpu", "--json")  # fmt: skip
        assert done.code == 0, done.err
        before = read_label_map(folder / "segmentations" / f"{modality.lower()}.seg.nrrd")
        np.testing.assert_array_equal(read_label_map(out).array, before.array)


def test_the_report_stands_alone_and_names_what_matters(demo):
    _, told = demo
    page = Path(told["report"]).read_text(encoding="utf-8")
    for words in ("How well unseen patients were segmented", "ct-north", "us-harbour", "demo-MR-v1", "Dice"):
        assert words in page
    assert page.count("data:image/png;base64,") == 7
    assert "<script" not in page


def test_a_second_run_goes_to_another_folder_and_cancelling_it_leaves_nothing(demo):
    folder, _ = demo
    second = folder.with_name("first-2")
    process = subprocess.Popen(
        command("demo", "--out", folder), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    started = time.monotonic()
    # wait until hospitals are running: that is when most could be left behind
    while not any("trainer_process" in line for line in processes_speaking_of(folder)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - started < 120
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "first-2" in said
    assert sorted(path.name for path in folder.parent.iterdir()) == ["first"]
    assert not second.exists()
    deadline = time.monotonic() + 15
    while (left := processes_speaking_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def test_no_patient_is_at_two_sites_or_in_two_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("FedSegCore.demo.patients.TRAINING_PATIENTS", dict.fromkeys(TRAINING_PATIENTS, 2))
    sites = write_sites(tmp_path, 0, Progress())
    voxels = set()
    for site in sites:
        cohort = read_cohort_file(site.cohort_file)
        assert cohort.count("validation") == VALIDATION_PATIENTS[cohort.modality]
        for case in cohort.cases:
            image = read_volume(site.cohort_file.parent / case.image, modality=cohort.modality)
            voxels.add(image.array.tobytes())
    assert len(voxels) == sum(2 + VALIDATION_PATIENTS[modality] for _, modality in SITES)


def test_the_demo_is_flames_per_modality_with_gin():
    config = demo_federation(5, 1)
    assert (config.grouping, config.aggregation.rule, config.rounds, config.seed) == ("modality", "flames", 5, 1)
    assert config.augmentation.gin is not None
    assert config.augmentation.spatial is not None
