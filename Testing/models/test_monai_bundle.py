"""A release as a MONAI bundle: MONAI's own runner gives the labels that our Segmenter gives."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from monai.bundle import ConfigWorkflow

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.predictor import make_predictor
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.inference.single_pieces import keep_single_pieces
from FedSegCore.inference.weights import load_weights
from FedSegCore.models.monai_bundle import inference_config, runs_without_fedseg, write_monai_bundle
from FedSegCore.models.release import Release, open_release, publish_release
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.geometry import Grid
from FedSegCore.volumes.preparation import prepare, restore_labels
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import write_volume

pytest.importorskip("nibabel", reason="MONAI's readers need nibabel")

FLAT = NetworkConfig(dimensions=2, out_channels=6, options={"channels": (4, 8), "residual_units": 1})
DEEP = NetworkConfig(dimensions=3, out_channels=6, options={"channels": (4, 8), "residual_units": 1})
OURS = NetworkConfig(dimensions=2, out_channels=6, name="fedgin_unet", options={"norm": "instance"})


def a_release(folder: Path, network: NetworkConfig, preprocessing: Preprocessing, trained=None, patch=(8, 32, 32)):
    """A release of random weights: they give every label somewhere, so that disagreement would show."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        weights = {name: tensor.numpy() for name, tensor in build_network(network).state_dict().items()}
    fields = {"name": "torso", "modalities": {preprocessing.modality: preprocessing}, "contract": TORSO_CONTRACT,
              "network": network, "patch_size": patch, "federation": "tests", "rule": "fedavg", "rounds": 1,
              "trained_labels": trained}  # fmt: skip
    return open_release(publish_release(folder / "releases", fields, weights, Ed25519PrivateKey.generate()))


def run_as_the_readme_says(bundle: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def run_here(bundle: Path) -> None:
    config = str(bundle / "configs" / "inference.json")
    with torch.no_grad():  # the bundle turns gradients off for good
        workflow = ConfigWorkflow(
            config, workflow_type="infer", logging_file=False, bundle_root=str(bundle), device="$torch.device('cpu')"
        )
        workflow.initialize()
        workflow.run()


def run_monais_engine(bundle: Path) -> None:
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        device="$torch.device('cpu')",
    )
    with torch.no_grad():
        workflow.initialize()
        assert not workflow.check_properties()  # what MONAI's specification of a bundle asks for
        workflow.evaluator.run()


def run_bundle(bundle: Path, image: Volume, run=run_here) -> sitk.Image:
    (bundle / "images").mkdir()
    write_volume(image, bundle / "images" / "scan.nii.gz")
    run(bundle)
    return sitk.ReadImage(str(bundle / "segmentations" / "scan_seg.nii.gz"))


def bundle_of(tmp_path: Path, release: Release) -> Path:
    (tmp_path / "bundle").mkdir()
    write_monai_bundle(tmp_path / "bundle", release)
    return tmp_path / "bundle"


def agreement(found: sitk.Image, image: Volume, labels: Volume) -> float:
    """The share of voxels that have the same label; the grid must be the image's."""
    np.testing.assert_allclose(found.GetSpacing(), image.grid.spacing, rtol=1e-5)
    np.testing.assert_allclose(found.GetOrigin(), image.grid.origin, atol=1e-3)
    np.testing.assert_allclose(found.GetDirection(), image.grid.direction, atol=1e-5)
    return float((sitk.GetArrayFromImage(found) == labels.array[0]).mean())


def labels_in_full_precision(image: Volume, release: Release) -> Volume:
    """What our predictor gives without Segmenter's rounding of probabilities to half precision."""
    card = release.card
    (preprocessing,) = card.modalities.values()
    network = build_network(card.network)
    load_weights(network, release.weights())
    given = [label.value for label in card.given_labels]
    predictor = make_predictor(
        network, card.network, card.patch_size, torch.device("cpu"), standardise=True, values=given
    )
    prepared = prepare(image, preprocessing)
    labels = restore_labels(predictor.labels(prepared.image, Progress()), prepared)
    keep_single_pieces(labels.array[0], card.contract)
    return labels


def turned(volume: Volume) -> Volume:
    """The same anatomy stored sagittally and upside down: axes permuted and flipped, exactly."""
    grid = volume.grid
    cosines = np.reshape(grid.direction, (3, 3))
    i, j, k = (np.array(grid.shape[::-1]) - 1).tolist()
    origin = np.array(grid.origin) + cosines[:, 2] * grid.spacing[2] * k
    direction = np.stack([cosines[:, 1], cosines[:, 0], -cosines[:, 2]], axis=1)
    array = volume.array.transpose(0, 1, 3, 2)[:, ::-1].copy()
    spacing = (grid.spacing[1], grid.spacing[0], grid.spacing[2])
    shape = (k + 1, i + 1, j + 1)
    return Volume(
        array, Grid(shape, spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist())), volume.modality
    )


@pytest.mark.parametrize(
    ("network", "modality", "trained", "run"),
    [
        (FLAT, "CT", None, run_as_the_readme_says),
        (DEEP, "MR", ("liver", "spleen"), run_here),
        (OURS, "CT", None, run_here),
        (FLAT, "MR", None, run_monais_engine),
    ],
    ids=["2-D CT", "3-D MR with labels nobody annotated", "a network of ours", "MONAI's engine"],
)
def test_monais_runner_gives_our_labels_on_the_images_own_voxels(network, modality, trained, run, tmp_path):
    image = turned(make_patient(modality, 3, size="test").image)
    # as fine as the image, so that nothing is interpolated
    preprocessing = DEFAULT_PREPROCESSING[modality].model_copy(update={"spacing": (None, None, None)})
    release = a_release(tmp_path, network, preprocessing, trained)
    assert runs_without_fedseg(release.card) == (network is not OURS)
    found = run_bundle(bundle_of(tmp_path, release), image, run)
    labels = set(np.unique(sitk.GetArrayFromImage(found)).tolist())
    assert len(labels) > 2
    assert labels <= {0, *(label.value for label in release.card.given_labels)}
    assert agreement(found, image, labels_in_full_precision(image, release)) > 0.99999
    # random weights make many near ties, which Segmenter's half precision decides otherwise
    assert agreement(found, image, Segmenter("cpu").segment(image, release).labels) > 0.999


def test_where_images_are_resampled_the_labels_differ_little(tmp_path):
    image = make_patient("CT", 3, size="test").image
    coarser = tuple(1.5 * step for step in image.grid.spacing)
    preprocessing = DEFAULT_PREPROCESSING["CT"].model_copy(update={"spacing": coarser})
    release = a_release(tmp_path, FLAT, preprocessing)
    found = run_bundle(bundle_of(tmp_path, release), image)
    assert agreement(found, image, Segmenter("cpu").segment(image, release).labels) > 0.9


def test_a_bundle_says_what_it_needs_and_where_it_comes_from(tmp_path):
    bundle = bundle_of(tmp_path, a_release(tmp_path, OURS, DEFAULT_PREPROCESSING["CT"]))
    assert "FedSegSlicer's Python package" in (bundle / "docs" / "README.md").read_text()
    assert sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()) == [
        "configs/inference.json", "configs/metadata.json", "docs/README.md", "docs/card.json", "models/model.pt",
    ]  # fmt: skip
    # nothing in it needs unpickling of objects
    assert set(torch.load(bundle / "models" / "model.pt", weights_only=True)) >= {"2.weight", "2.bias"}


def test_every_modality_of_a_release_has_its_configuration(tmp_path):
    release = a_release(tmp_path, FLAT, DEFAULT_PREPROCESSING["CT"])
    both = {"CT": DEFAULT_PREPROCESSING["CT"], "MR": DEFAULT_PREPROCESSING["MR"]}
    bundle = bundle_of(tmp_path, replace(release, card=release.card.model_copy(update={"modalities": both})))
    scales = []
    for name in ("inference.json", "inference_mr.json"):
        config = json.loads((bundle / "configs" / name).read_text(encoding="utf-8"))
        scales.append(config["preprocessing"]["transforms"][3]["_target_"])
    assert scales == ["ScaleIntensityRanged", "ScaleIntensityRangePercentilesd"]
    assert "inference_mr.json" in (bundle / "docs" / "README.md").read_text(encoding="utf-8")


def test_what_monai_cannot_prepare_is_refused(tmp_path):
    with pytest.raises(BadInputError) as caught:
        inference_config(a_release(tmp_path, FLAT, DEFAULT_PREPROCESSING["US"]).card, "US")
    assert caught.value.code == "export.not-for-monai"
