"""What the worker makes of GIN: samples, their measures, and a kept sample again."""

import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.stats import wasserstein_distance

from FedSegCore.augmentation.gin import GinParameters, apply_gin
from FedSegCore.common.errors import BadInputError, CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.phantoms.torso import make_patient
from FedSegCore.volumes.preparation import prepare
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume
from FedSegCore.worker.methods import Methods


def small(modality, seed, size=(8, 20, 24)):
    """A piece out of a patient's middle: whole ones have millions of voxels once they are prepared."""
    image = make_patient(modality, seed, size="test").image
    first = [max(0, (n - wanted) // 2) for n, wanted in zip(image.grid.shape, size, strict=True)]
    piece = tuple(slice(start, start + wanted) for start, wanted in zip(first, size, strict=True))
    array = np.ascontiguousarray(image.array[:, *piece])
    return Volume(array, Grid(array.shape[1:], image.grid.spacing, (1.0, 2.0, 3.0)), modality=modality)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nrrd"
    write_volume(small("CT", 5), path)
    return path


def call(methods: Methods, name: str, progress: Progress | None = None, **params):
    method = methods.find(name)
    return method.slow(method.params.model_validate(params), progress or Progress())


def preview(scan: Path, folder: Path, **settings):
    folder.mkdir()
    return call(Methods(), "gin.preview", image=str(scan), modality="CT", folder=str(folder), **settings)


@pytest.mark.parametrize("per_batch", [False, True])
def test_gin_samples_are_files_that_their_parameters_replay(scan, tmp_path, per_batch):
    settings = {"samples": 2, "seed": 3, "per_batch": per_batch}
    made = preview(scan, tmp_path / "a", **settings)
    original = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / made["original"])))
    assert original.shape[0] == made["slab"]["of"] == made["slab"]["count"]
    assert (original.min() >= 0) & (original.max() <= 1)
    for sample in made["samples"]:
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / sample["image"])))
        parameters = GinParameters.load(tmp_path / "a" / sample["parameters"])
        replayed = apply_gin(torch.from_numpy(original)[None, None], parameters)[0, 0].numpy()
        np.testing.assert_allclose(written, replayed, atol=1e-5)
        assert sample["alpha"] == pytest.approx(float(parameters.alpha[0]))
    again = preview(scan, tmp_path / "b", **settings)
    assert [s["sha256"] for s in again["samples"]] == [s["sha256"] for s in made["samples"]]
    same = (tmp_path / "a" / "sample-2.nrrd").read_bytes() == (tmp_path / "b" / "sample-2.nrrd").read_bytes()
    assert same
    other = preview(scan, tmp_path / "c", **{**settings, "seed": 4})
    assert [s["alpha"] for s in other["samples"]] != [s["alpha"] for s in made["samples"]]


@pytest.mark.parametrize("per_batch", [False, True])
def test_samples_can_be_had_one_by_one(scan, tmp_path, per_batch):
    settings = {"seed": 3, "slices": 2, "per_batch": per_batch}
    both = preview(scan, tmp_path / "both", samples=2, **settings)
    second = preview(scan, tmp_path / "second", samples=1, first=1, with_original=False, **settings)
    assert second["original"] is None
    assert not (tmp_path / "second" / "original.nrrd").exists()
    assert second["samples"] == both["samples"][1:]


def test_a_kept_sample_is_made_again_to_the_bit(scan, tmp_path):
    made = preview(scan, tmp_path / "a", samples=1, seed=8)
    noted = base64.b64encode((tmp_path / "a" / "sample-1.safetensors").read_bytes()).decode()
    order = {"image": str(scan), "preprocessing": made["preprocessing"], "output": str(tmp_path / "again.nrrd")}
    again = call(Methods(), "gin.replay", parameters=noted, **order)
    assert again["sha256"] == made["samples"][0]["sha256"]
    voxels = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (tmp_path / "a/sample-1.nrrd", order["output"])]
    np.testing.assert_array_equal(*voxels)
    assert hashlib.sha256(voxels[0].tobytes()).hexdigest() == again["sha256"]
    for damaged in (noted[:-8], "%%%", base64.b64encode(b"nothing").decode()):
        with pytest.raises(BadInputError) as refused:
            call(Methods(), "gin.replay", parameters=damaged, **order)
        assert refused.value.code == "gin.unreadable"
    with pytest.raises(BadInputError) as refused:
        call(Methods(), "gin.replay", parameters=noted, **{**order, "preprocessing": {"modality": "CT"}})
    assert refused.value.code == "gin.invalid"


def test_alpha_zero_leaves_the_image(scan, tmp_path):
    made = preview(scan, tmp_path / "a", samples=1, slices=4, alpha=[0.0, 0.0])
    names = (made["original"], made["samples"][0]["image"])
    original, sample = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / name))) for name in names)
    np.testing.assert_allclose(sample, original, atol=1e-4)
    (row,) = made["samples"]
    assert (row["correlation"], row["edges"]) == (pytest.approx(1), pytest.approx(1))
    assert row["histogram_distance"] == pytest.approx(0, abs=1e-4)


def test_the_slab_lies_where_it_was_cut_from(scan, tmp_path):
    """Around the point that was asked for; its slices are those of the whole volume but for one factor."""
    whole_made = preview(scan, tmp_path / "whole", samples=1)
    whole, sample = (sitk.ReadImage(str(tmp_path / "whole" / name)) for name in ("original.nrrd", "sample-1.nrrd"))
    k = whole.GetSize()[2] // 3
    point = whole.TransformIndexToPhysicalPoint((4, 5, k))
    made = preview(scan, tmp_path / "slab", samples=1, slices=3, around=point)
    slab, part = (sitk.ReadImage(str(tmp_path / "slab" / name)) for name in ("original.nrrd", "sample-1.nrrd"))
    assert made["slab"] == {"first": k - 1, "count": 3, "of": whole.GetSize()[2]}
    assert made["slice"] == k
    np.testing.assert_allclose(slab.GetOrigin(), whole.TransformIndexToPhysicalPoint((0, 0, k - 1)), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(slab), sitk.GetArrayFromImage(whole)[k - 1 : k + 2])
    expected = sitk.GetArrayFromImage(sample)[k - 1 : k + 2]
    found = sitk.GetArrayFromImage(part)
    factor = np.linalg.norm(expected) / np.linalg.norm(found)
    np.testing.assert_allclose(found * factor, expected, atol=1e-4)
    assert 0 <= whole_made["slice"] < whole.GetSize()[2]
    outside = preview(scan, tmp_path / "outside", samples=1, slices=1, around=(0.0, 0.0, 1e6))
    assert outside["slice"] == whole_made["slice"]


def test_measures_and_histograms_are_those_of_the_voxels(scan, tmp_path):
    mr = tmp_path / "mr.nrrd"
    write_volume(small("MR", 4), mr)
    made = preview(scan, tmp_path / "a", samples=1, seed=2, reference=str(mr), reference_modality="MR")
    names = (made["original"], made["samples"][0]["image"])
    original, sample = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / name))) for name in names)
    reference = prepare(read_volume(mr, modality="MR"), DEFAULT_PREPROCESSING["MR"]).image[0]
    (row,) = made["samples"]
    rim = GinParameters.load(tmp_path / "a" / row["parameters"]).reach
    inside = (slice(None), slice(rim, -rim), slice(rim, -rim))
    before, after = (image[inside][made["slice"]].ravel() for image in (original, sample))
    assert row["correlation"] == pytest.approx(np.corrcoef(before, after)[0, 1], abs=1e-5)

    def standardised(image):
        return (image.ravel() - image.mean()) / image.std()

    looks = [standardised(image) for image in (original, sample[inside], reference)]
    assert row["reference_distance"] == pytest.approx(wasserstein_distance(looks[1], looks[2]), abs=0.02)
    assert made["look"]["distance"] == pytest.approx(wasserstein_distance(looks[0], looks[2]), abs=0.02)
    edges = np.arange(-4, 4.001, 0.125)
    for shares, look in zip(
        (made["look"]["original"], row["histogram"], made["look"]["reference"]), looks, strict=True
    ):
        expected = np.histogram(np.clip(look, -4, 4), edges)[0] / look.size
        np.testing.assert_allclose(shares, expected, atol=0.01)
        assert sum(shares) == pytest.approx(1)


def test_a_preview_can_be_cancelled_between_pieces_of_a_volume(scan, tmp_path):
    (tmp_path / "a").mkdir()
    progress = Progress(lambda fraction, stage: progress.cancel() if stage.startswith("sample 2") else None)
    with pytest.raises(CancelledError):
        call(Methods(), "gin.preview", progress, image=str(scan), modality="CT", folder=str(tmp_path / "a"), samples=3)
    assert not (tmp_path / "a" / "sample-3.nrrd").exists()


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

    path = tmp_path / "image.nrrd"
    write_volume(small(modality, 6), path)
    folder = tmp_path / "samples"
    folder.mkdir()
    made = call(Methods(), "gin.preview", image=str(path), modality=modality, folder=str(folder), samples=2, seed=9)
    prepared = prepare(read_volume(path, modality=modality), DEFAULT_PREPROCESSING[modality])
    dimensions = 3 if prepared.grid.shape[0] > 1 else 2
    expected = gin_samples(prepared.image, GinConfig(), samples=2, seed=9, dimensions=dimensions)
    for sample, other in zip(made["samples"], expected.samples, strict=True):
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / sample["image"])))
        np.testing.assert_allclose(written[expected.slice_index], other.slice[0], atol=1e-5)
