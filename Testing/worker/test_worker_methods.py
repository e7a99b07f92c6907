"""The worker's own work on real files: inspect, releases, segment, gin.preview."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from FedSegCore.augmentation.gin import GinParameters, apply_gin
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


def preview(scan: Path, folder: Path, **settings):
    folder.mkdir()
    return call(Methods(), "gin.preview", image=str(scan), modality="CT", folder=str(folder), **settings)


@pytest.mark.parametrize("per_batch", [False, True])
def test_gin_samples_are_files_that_their_parameters_replay(scan, tmp_path, per_batch):
    settings = {"samples": 2, "seed": 3, "slices": 5, "per_batch": per_batch}
    made = preview(scan, tmp_path / "a", **settings)
    original = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / made["original"])))
    assert original.shape[0] == 5
    assert (original.min() >= 0) & (original.max() <= 1)
    for sample in made["samples"]:
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / sample["image"])))
        parameters = GinParameters.load(tmp_path / "a" / sample["parameters"])
        replayed = apply_gin(torch.from_numpy(original)[None, None], parameters)[0, 0].numpy()
        np.testing.assert_allclose(written, replayed, atol=1e-5)
        assert sample["alpha"] == pytest.approx(float(parameters.alpha[0]))
    again = preview(scan, tmp_path / "b", **settings)
    assert [s["alpha"] for s in again["samples"]] == [s["alpha"] for s in made["samples"]]
    same = (tmp_path / "a" / "sample-2.nrrd").read_bytes() == (tmp_path / "b" / "sample-2.nrrd").read_bytes()
    assert same
    other = preview(scan, tmp_path / "c", **{**settings, "seed": 4})
    assert [s["alpha"] for s in other["samples"]] != [s["alpha"] for s in made["samples"]]


def test_alpha_zero_leaves_the_image(scan, tmp_path):
    made = preview(scan, tmp_path / "a", samples=1, slices=4, alpha=[0.0, 0.0])
    names = (made["original"], made["samples"][0]["image"])
    original, sample = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / name))) for name in names)
    np.testing.assert_allclose(sample, original, atol=1e-4)


def test_the_slab_lies_where_it_was_cut_from(scan, tmp_path):
    preview(scan, tmp_path / "whole", samples=1)
    preview(scan, tmp_path / "slab", samples=1, slices=3)
    whole, slab = (sitk.ReadImage(str(tmp_path / name / "original.nrrd")) for name in ("whole", "slab"))
    first = (whole.GetSize()[2] - 3) // 2
    np.testing.assert_allclose(slab.GetOrigin(), whole.TransformIndexToPhysicalPoint((0, 0, first)), atol=1e-4)
    expected = sitk.GetArrayFromImage(whole)[first : first + 3]
    np.testing.assert_allclose(sitk.GetArrayFromImage(slab), expected, atol=1e-6)


@pytest.mark.parametrize("settings", [{"kernel_sizes": [2]}, {"alpha": [0.9, 0.1]}])
def test_gin_settings_that_do_not_fit_are_refused(scan, tmp_path, settings):
    with pytest.raises(BadInputError) as refused:
        preview(scan, tmp_path / "a", **settings)
    assert refused.value.code == "gin.bad-settings"


@pytest.mark.parametrize("modality", ["CT", "US"])
def test_samples_are_those_of_the_command(tmp_path, modality):
    """``fedseg gin`` and the preview draw the same sample n from the same seed, in 3-D and for one slice."""
    from FedSegCore.augmentation.config import GinConfig
    from FedSegCore.augmentation.quality import gin_samples
    from FedSegCore.volumes.preparation import prepare
    from FedSegCore.volumes.reading import read_volume

    path = tmp_path / "image.nrrd"
    write_volume(make_patient(modality, 6, size="test").image, path)
    folder = tmp_path / "samples"
    folder.mkdir()
    made = call(Methods(), "gin.preview", image=str(path), modality=modality, folder=str(folder), samples=2, seed=9)
    prepared = prepare(read_volume(path, modality=modality), DEFAULT_PREPROCESSING[modality])
    dimensions = 3 if prepared.grid.shape[0] > 1 else 2
    expected = gin_samples(prepared.image, GinConfig(), samples=2, seed=9, dimensions=dimensions)
    for sample, other in zip(made["samples"], expected.samples, strict=True):
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / sample["image"])))
        np.testing.assert_allclose(written[expected.slice_index], other.slice[0], atol=1e-5)
