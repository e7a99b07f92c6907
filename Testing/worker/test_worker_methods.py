"""The worker's own work on real files: inspect, releases, segment."""

import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from FedSegCore.common.errors import BadInputError, CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.models.release import publish_release
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING
from FedSegCore.volumes.segmentation_file import read_segments
from FedSegCore.volumes.writing import write_volume
from FedSegCore.worker.methods import Methods


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nrrd"
    write_volume(make_patient("CT", 5, size="test").image, path)
    return path


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    config = NetworkConfig(out_channels=6, options={"channels": (4, 8), "residual_units": 0})
    preprocessing = DEFAULT_PREPROCESSING["CT"].model_copy(update={"spacing": (8.0, 8.0, 8.0)})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = build_network(config)
    fields = {"name": "tiny-CT", "modalities": {"CT": preprocessing}, "contract": TORSO_CONTRACT, "network": config,
              "patch_size": (16, 32, 32), "federation": "tests", "rule": "fedavg", "rounds": 1}  # fmt: skip
    folder = tmp_path_factory.mktemp("releases")
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    publish_release(folder, fields, weights, Ed25519PrivateKey.generate())
    return folder


def call(methods: Methods, name: str, progress: Progress | None = None, **params):
    method = methods.find(name)
    return method.slow(method.params.model_validate(params), progress or Progress())


def test_inspect_says_what_the_image_is(scan):
    facts = call(Methods(), "inspect", image=str(scan))
    assert facts["modality"]["value"] == "CT"
    assert facts["shape"] == list(sitk.ReadImage(str(scan)).GetSize())
    assert call(Methods(), "inspect", image=str(scan), modality="MR")["modality"]["value"] == "MR"


def test_an_annotation_chosen_by_mistake_is_named(tmp_path):
    labels = make_patient("CT", 5, size="test").labels
    write_volume(labels.with_array(labels.array.astype(np.int16)), tmp_path / "labels.nrrd")
    with pytest.raises(BadInputError) as refused:
        call(Methods(), "inspect", image=str(tmp_path / "labels.nrrd"))
    assert refused.value.code == "image.labels"


def test_releases_are_described_for_people(releases):
    (row,) = call(Methods(), "releases", folder=str(releases))["releases"]
    assert row["id"] == "tiny-CT-v1"
    assert row["labels"] == list(TORSO_CONTRACT.names)
    assert row["modalities"] == ["CT"]


def test_segment_writes_what_it_says_and_keeps_the_network(scan, releases, tmp_path):
    methods, seen = Methods(), []
    order = {"image": str(scan), "releases": str(releases), "device": "cpu", "modality": "CT"}
    first = call(
        methods, "segment", Progress(lambda *told: seen.append(told)), output=str(tmp_path / "a.seg.nrrd"), **order
    )
    kept = methods._segmenters["cpu"]
    second = call(methods, "segment", output=str(tmp_path / "b.seg.nrrd"), **order)
    assert methods._segmenters == {"cpu": kept}
    path = tmp_path / "a.seg.nrrd"
    assert first["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [segment["name"] for segment in read_segments(path)] == list(TORSO_CONTRACT.names)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    voxel_ml = np.prod(sitk.ReadImage(str(scan)).GetSpacing()) / 1000
    for segment in first["segments"]:
        assert segment["volume_ml"] == pytest.approx((labels == segment["value"]).sum() * voxel_ml, rel=1e-3, abs=1e-3)
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.seg.nrrd"))))
    assert second["release"] == "tiny-CT-v1"
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_a_cancelled_segmentation_writes_nothing(scan, releases, tmp_path):
    progress = Progress(lambda fraction, stage: progress.cancel() if fraction > 0.3 else None)
    with pytest.raises(CancelledError):
        call(Methods(), "segment", progress, image=str(scan), releases=str(releases), output=str(tmp_path / "a.nrrd"))
    assert list(tmp_path.iterdir()) == []


def test_what_to_expect_is_unknown_at_first_and_told_from_the_second_run_on(scan, releases, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSEG_SPEEDS", str(tmp_path / "speeds.json"))
    methods, image = Methods(), sitk.ReadImage(str(scan))
    question = {"releases": str(releases), "release": "tiny-CT-v1", "modality": "CT", "device": "cpu",
                "size": list(image.GetSize()), "spacing": list(image.GetSpacing())}  # fmt: skip
    assert call(methods, "expect", **question)["seconds"] is None
    order = {"image": str(scan), "releases": str(releases), "device": "cpu", "modality": "CT"}
    done = call(methods, "segment", pieces=str(tmp_path / "pieces"), **order)
    known = call(methods, "expect", **question)
    assert known["runs"] == 1
    assert known["seconds"] == pytest.approx(done["seconds"], rel=3, abs=3)  # the same volume on the same computer
    assert known["seconds"] >= round(done["seconds"], 1) - 0.1  # reading and writing count too
    double = call(methods, "expect", **{**question, "size": [*image.GetSize()[:2], 2 * image.GetSize()[2]]})
    assert double["seconds"] == pytest.approx(2 * known["seconds"], abs=0.11)
    content = (tmp_path / "speeds.json").read_text()
    assert "scan" not in content
    assert str(tmp_path) not in content


def test_pieces_are_the_segmentation_and_nothing_else_is_written(scan, releases, tmp_path):
    order = {"image": str(scan), "releases": str(releases), "device": "cpu", "modality": "CT"}
    done = call(Methods(), "segment", output=str(tmp_path / "a.nrrd"), pieces=str(tmp_path / "pieces"), **order)
    whole = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd")))
    rebuilt = np.zeros_like(whole)
    piece = np.load(tmp_path / "pieces" / done["pieces"]["labels"]["file"])
    i, j, k = done["pieces"]["labels"]["start"]
    rebuilt[k : k + piece.shape[0], j : j + piece.shape[1], i : i + piece.shape[2]] = piece
    np.testing.assert_array_equal(rebuilt, whole)
    assert {path.name for path in tmp_path.iterdir()} == {"a.nrrd", "pieces"}
