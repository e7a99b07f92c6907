"""``fedseg segment`` through its real entry point: in this process where the file is what matters, else in its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from blob_scans import CT, ball_scan, centred, dice, publish
from test_segmenter import GRIDS

from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import ReleaseUsed
from FedSegCore.inference.weights import weights_of
from FedSegCore.models.release import open_release
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.segmentation_file import read_segments
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume


@pytest.fixture
def segment(fedseg, releases, tmp_path):
    def run(image: Path, *more: object, out: str = "found.seg.nrrd") -> SimpleNamespace:
        target = tmp_path / out
        done = fedseg("segment", image, "--releases", releases, "--out", target, "--device", "cpu", "--json", *more)
        done.target = target
        done.leftovers = [path.name for path in tmp_path.rglob(".writing-*")]
        return done

    return run


def as_sitk(array: np.ndarray, grid: Grid, *, vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def check_found(done: SimpleNamespace, image: Path, ball: np.ndarray, least: float = 0.85) -> None:
    assert (done.code, done.leftovers) == (0, []), done.err
    reader, source = sitk.ReadImage(str(done.target)), sitk.ReadImage(str(image))
    assert reader.GetSize() == source.GetSize()[:3]
    for mine, given in (
        (reader.GetSpacing(), source.GetSpacing()[:3]),
        (reader.GetOrigin(), source.GetOrigin()[:3]),
        (reader.GetDirection(), source.GetDirection() if source.GetDimension() == 3 else reader.GetDirection()),
    ):
        np.testing.assert_allclose(mine, given, atol=1e-4)
    assert dice(sitk.GetArrayFromImage(reader) == 1, ball) > least


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_scans_lying_in_any_way_are_segmented_on_their_own_grid(name, suffix, segment, tmp_path):
    image, ball = ball_scan(GRIDS[name], seed=31)
    path = tmp_path / f"scan{suffix}"
    write_volume(image, path)
    done = segment(path, "--modality", "CT", out=f"found{suffix}")
    check_found(done, path, ball)


def test_a_site_notes_the_release_it_used_and_nothing_of_the_patient(segment, releases, tmp_path):
    (tmp_path / "ca.crt").write_text("certificate")
    settings = SiteSettings(name="north", coordinator="localhost:9443")
    site = SiteFolder.create(tmp_path / "site", settings, tmp_path / "ca.crt")
    image, _ = ball_scan(GRIDS["axial"])
    write_volume(image, tmp_path / "Doe-Jane.nrrd")
    done = segment(tmp_path / "Doe-Jane.nrrd", "--modality", "CT", "--site", site.path)
    assert done.code == 0, done.err
    card = open_release(releases / json.loads(done.out.splitlines()[-1])["release"]).card
    assert [line.entry for line in site.journal.lines()][1:] == [
        ReleaseUsed(modality="CT", weights_sha256=card.weights_sha256)
    ]
    nowhere = segment(tmp_path / "Doe-Jane.nrrd", "--site", tmp_path / "nowhere", out="second.nrrd")
    assert (nowhere.code, nowhere.target.exists()) == (3, False)


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.float64, np.int16])
def test_every_number_type_is_read(kind, segment, tmp_path):
    image, ball = ball_scan(GRIDS["axial"])
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(as_sitk(image.array[0].astype(kind), image.grid), str(path))
    check_found(segment(path), path, ball)  # Hounsfield units with air: CT is detected


def test_a_few_voxels_that_are_not_numbers_do_no_harm(segment, tmp_path):
    image, ball = ball_scan(GRIDS["axial"])
    array = image.array[0].astype(np.float32)
    array[0, :2, :3] = np.nan
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(as_sitk(array, image.grid), str(path))
    check_found(segment(path), path, ball)


def test_one_volume_of_a_four_dimensional_image_is_segmented_when_named(segment, tmp_path):
    image, ball = ball_scan(GRIDS["axial"])
    series = sitk.JoinSeries([as_sitk(image.array[0] * 0 + n, image.grid) for n in range(2)])
    series[:, :, :, 1] = as_sitk(image.array[0], image.grid)
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(series, str(path))
    refused = segment(path, "--modality", "CT")
    assert refused.code == 3
    assert "image.four-dimensional" in refused.err
    assert "2 volumes" in refused.err
    assert not refused.target.exists()
    check_found(segment(path, "--modality", "CT", "--frame", "1"), path, ball)


def test_a_colour_picture_is_segmented_by_a_release_for_pictures(fedseg, tmp_path):
    network = NetworkConfig(dimensions=2, in_channels=3, out_channels=3, options={"channels": [4, 8]})
    colour = Preprocessing(modality="ES", in_plane_size=(32, 32), percentiles=(0.0, 100.0), channels=3)
    folder = tmp_path / "releases"
    torch.manual_seed(0)
    publish(folder, "pictures", {"ES": colour}, weights_of(build_network(network)), network)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 30, 50, 3)).astype(np.uint8)
    picture, target = tmp_path / "picture.png", tmp_path / "found.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(pixels[0], isVector=True), str(picture))
    done = fedseg("segment", picture, "--releases", folder, "--modality", "ES", "--out", target, "--json")
    assert done.code == 0, done.err
    assert sitk.ReadImage(str(target)).GetSize() == (50, 30, 1)
    found = [each for each in json.loads(done.out.splitlines()[-1])["segments"] if each["voxels"]]
    assert found, "the untrained network of this seed finds something"
    for each in found:
        assert (each["volume_ml"], each["area_mm2"]) == (None, None)
        assert f"{each['name']}: {each['voxels']} pixels" in " ".join(done.err.split())


def bytes_of(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def constant(folder: Path) -> Path:
    write_volume(Volume(np.full((1, 4, 8, 8), 7, np.int16), Grid((4, 8, 8))), folder / "empty.nrrd")
    return folder / "empty.nrrd"


def truncated(folder: Path) -> Path:
    write_volume(ball_scan(GRIDS["axial"])[0], folder / "scan.nii.gz")
    return bytes_of(folder / "cut.nii.gz", (folder / "scan.nii.gz").read_bytes()[:4000])


def not_numbers(folder: Path) -> Path:
    array = np.full((4, 8, 8), np.nan, np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "nan.nrrd"))
    return folder / "nan.nrrd"


def colour_volume(folder: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(folder / "colour.nrrd"))
    return folder / "colour.nrrd"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (constant, "image.constant"),
        (truncated, "image."),
        (not_numbers, "image.not-finite"),
        (colour_volume, "image.colour-volume"),
        (
            lambda folder: bytes_of(folder / "letter.nii.gz", b"Dear colleague, please find enclosed"),
            "image.unreadable",
        ),
        (lambda folder: bytes_of(folder / "nothing.nrrd", b""), "image."),
        (lambda folder: bytes_of(folder / "text.txt", b"not an image"), "image."),
        (lambda folder: folder / "absent.nrrd", "image."),
    ],
)
def test_what_cannot_be_segmented_is_refused_with_code_and_remedy_and_leaves_nothing(make, code, segment, tmp_path):
    done = segment(make(tmp_path), "--modality", "CT")
    assert (done.code, done.out, done.leftovers) == (3, "", [])
    assert code in done.err
    assert len(done.err.strip().splitlines()) >= 2  # what is wrong, and what to do
    assert "Traceback" not in done.err
    assert not done.target.exists()


@pytest.fixture
def scan(tmp_path) -> Path:
    write_volume(ball_scan(GRIDS["axial"])[0], tmp_path / "scan.nrrd")
    return tmp_path / "scan.nrrd"


def test_the_last_line_is_one_json_object_and_the_file_names_its_segments(segment, scan):
    done = segment(scan)
    said = json.loads(done.out.splitlines()[-1])
    assert {key: said[key] for key in ("release", "modality", "device")} == {
        "release": "ball-CT-v1",
        "modality": "CT",
        "device": "cpu",
    }
    assert said["seconds"] > 0
    ball, nowhere = said["segments"]
    inside = read_label_map(done.target).array == 1
    voxels = int(inside.sum())
    assert ball == {
        "name": "ball",
        "value": 1,
        "code": ball["code"],
        "voxels": voxels,
        "volume_ml": pytest.approx(voxels * 3.0 * 3.0 * 6.0 / 1000.0, abs=1e-3),
        "area_mm2": None,
        "mean_intensity": pytest.approx(read_volume(scan).array[inside].mean(), abs=1e-3),
    }
    assert said["intensity_unit"] == "HU"
    assert [(doubt["label"], doubt["code"]) for doubt in said["please_check"]] == [("nowhere", "not-found")]
    assert "nowhere: not found" in " ".join(done.err.split())
    assert "10200004" in ball["code"]
    # A ball of 24 mm holds 57.9 ml.
    assert ball["volume_ml"] == pytest.approx(57.9, rel=0.15)
    assert nowhere["volume_ml"] == 0
    assert [segment["name"] for segment in read_segments(done.target)] == ["ball", "nowhere"]


def test_the_newest_release_is_taken_unless_one_is_named(fedseg, releases, scan, tmp_path):
    folder = shutil.copytree(releases, tmp_path / "releases")
    network = NetworkConfig(dimensions=2, out_channels=3, options={"channels": [4, 8]})
    publish(folder, "newer-CT", {"CT": CT}, weights_of(build_network(network)), network)
    said = []
    for more in ((), ("--release", "ball-CT"), ("--release", "ball-CT-v1")):
        done = fedseg("segment", scan, "--releases", folder, "--out", tmp_path / "found.nii.gz", "--json", *more)
        said.append(json.loads(done.out.splitlines()[-1])["release"])
    assert said == ["newer-CT-v1", "ball-CT-v1", "ball-CT-v1"]


def test_a_tampered_release_is_refused_by_name_and_passed_over_otherwise(fedseg, releases, scan, tmp_path):
    folder = shutil.copytree(releases, tmp_path / "releases")
    weights = folder / "ball-CT-v1" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    target = tmp_path / "found.nii.gz"
    for more, code in ((("--release", "ball-CT-v1"), "release.weights-changed"), ((), "release.none")):
        done = fedseg("segment", scan, "--releases", folder, "--out", target, *more)
        assert (done.code, target.exists()) == (3, False)
        assert code in done.err


def test_wrong_use_is_told_apart_from_wrong_files(segment, fedseg, scan, tmp_path):
    assert segment(scan, "--modality", "XR").code == 2
    assert segment(scan, out="found.docx").code == 2
    assert segment(scan, out="no/such/folder/found.nrrd").code == 2
    assert segment(scan, out="scan.nrrd").code == 2  # would replace the image
    assert fedseg("segment", scan).code == 2
    assert segment(scan, "--release", "nobody").code == 3
    assert segment(scan, "--modality", "MR").code == 3


def test_an_image_of_unsure_modality_asks_unless_only_one_release_can_be_meant(fedseg, releases, tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (1, 1, 40, 40)).astype(np.uint8)
    path, target = tmp_path / "grey.png", tmp_path / "found.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(grey[0, 0]), str(path))
    folder = shutil.copytree(releases, tmp_path / "releases")
    done = fedseg("segment", path, "--releases", folder, "--out", target)
    assert done.code == 3
    assert "image.modality-unsure" in done.err
    assert "Say which kind of image it is: CT." in done.err
    mr = Preprocessing(modality="MR", percentiles=(0.5, 99.5))
    network = NetworkConfig(dimensions=2, out_channels=3, options={"channels": [4, 8]})
    publish(folder, "some-MR", {"MR": mr}, weights_of(build_network(network)), network)
    done = fedseg("segment", path, "--releases", folder, "--out", target, "--release", "some-MR", "--json")
    assert json.loads(done.out.splitlines()[-1])["modality"] == "MR"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "FedSegCore.cli.main", *map(str, arguments)]


def test_in_a_process_of_its_own(releases, scan, tmp_path):
    target = tmp_path / "found.seg.nrrd"
    done = subprocess.run(
        command("segment", scan, "--releases", releases, "--out", target, "--json"),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["release"] == "ball-CT-v1"
    assert dice(read_label_map(target).array[0] == 1, ball_scan(GRIDS["axial"])[1]) > 0.85


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a single child process")
def test_ctrl_c_ends_within_two_seconds_and_leaves_no_file(releases, tmp_path):
    scan, target = tmp_path / "long.nrrd", tmp_path / "found.seg.nrrd"
    write_volume(ball_scan(centred((1200, 60, 60)))[0], scan)
    process = subprocess.Popen(
        command("segment", scan, "--releases", releases, "--out", target, "--modality", "CT"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        assert any("Computing on" in line for line in process.stderr)  # torch is loaded, the work begins
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, words = process.communicate(timeout=30)
        assert time.monotonic() - sent < 6.0  # under two seconds where nothing else runs
    finally:
        process.kill()
    assert process.returncode == 130, words
    assert "cancelled" in words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.nrrd"]


def test_a_dicom_series_gives_a_dicom_segmentation_and_another_image_does_not(segment, scan, tmp_path):
    import highdicom
    import pydicom

    refused = segment(scan, out="found.dcm")
    assert (refused.code, refused.target.exists()) == (3, False)
    assert "output.no-dicom" in refused.err
    image, ball = ball_scan(GRIDS["axial"])
    folder = tmp_path / "series"
    folder.mkdir()
    for number, voxels in enumerate(image.array[0].astype(np.int16), start=1):
        one = sitk.GetImageFromArray(voxels)
        one.SetSpacing(image.grid.spacing[:2])
        place = np.array(image.grid.origin) + (number - 1) * image.grid.spacing[2] * np.array([0, 0, 1.0])
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0008|0018": f"1.2.3.4.{number}",
                "0020|0052": "1.2.3.9", "0020|0013": str(number), "0020|0037": r"1\0\0\0\1\0",
                "0020|0032": "\\".join(f"{x:.4f}" for x in place)}  # fmt: skip
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{number:03d}.dcm"))
        writer.Execute(one)
    refused = segment(folder, out="series/found.dcm")
    assert (refused.code, refused.target.exists()) == (2, False)
    assert "output.in-series" in refused.err
    done = segment(folder, out="found.dcm")
    assert done.code == 0, done.err
    read = highdicom.seg.segread(done.target)
    assert [read.get_segment_description(n).segment_label for n in (1, 2)] == ["ball", "nowhere"]
    slices = {str(pydicom.dcmread(path).SOPInstanceUID): int(path.stem) - 1 for path in folder.iterdir()}
    found = np.zeros(image.grid.shape, bool)
    for pixels, groups in zip(read.pixel_array, read.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[slices[source]] |= pixels > 0
    assert dice(found, ball) > 0.85
