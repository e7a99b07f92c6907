"""A release as a MONAI bundle, which MONAI's own runner loads and runs.

The bundle does with MONAI's transforms what ``FedSegCore.inference`` does with ours, in the same order: orient, bring
intensities to [0, 1], resample, tiles with Gaussian blending, each tile brought to zero mean and unit variance (a
``GroupNorm`` of one group without parameters in front of the network), labels that nobody annotated silenced (a fixed
1x1 convolution behind it), probabilities brought back onto the image's own voxels, the most probable label. Arrays run
(k, j, i) as in ours because the bundle orients to "SPL". The weights are written with ``torch.save`` as a plain state
dict and read by the bundle with ``weights_only=True``; nothing here reads such a file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from FedSegCore import __version__
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import write_json, write_text
from FedSegCore.models.card import ModelCard
from FedSegCore.models.release import Release
from FedSegCore.networks.padding import padded_size
from FedSegCore.networks.registry import size_multiple
from FedSegCore.networks.unet import UnetOptions, unet_settings
from FedSegCore.volumes.preprocessing import Preprocessing

OVERLAP = 0.25
"""As ``FedSegCore.inference.predictor``."""

SILENT = -1.0e4
"""Added to the logits of labels that no site annotated: their probability is 0 in float32."""

_EACH_CASE = (
    "$[@postprocessing({**case, 'pred': @inferer(case['image'].as_tensor()[None].to(@device), @network)[0]})"
    " for case in @dataset]"
)
_AXES = [["L", "R"], ["P", "A"], ["I", "S"]]


def write_monai_bundle(folder: Path, release: Release) -> None:
    """Write the bundle into an empty folder: configs, models/model.pt, docs, and the release's card.

    ``configs/inference.json`` is for the release's only modality, or the first by name; where there are several,
    ``configs/inference_<modality>.json`` are for the others.

    Raises:
        BadInputError: ``export.not-for-monai``: MONAI's transforms cannot do this preprocessing; ``release.weights-*``.
    """
    card = release.card
    configs = {name: inference_config(card, name) for name in sorted(card.modalities)}
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    for number, (modality, config) in enumerate(configs.items()):
        name = "inference.json" if number == 0 else f"inference_{modality.lower()}.json"
        write_json(folder / "configs" / name, config)
    write_json(folder / "configs" / "metadata.json", metadata(release))
    torch.save(bundle_weights(card, release.weights()), folder / "models" / "model.pt")
    write_text(folder / "docs" / "README.md", _readme(release))
    (folder / "docs" / "card.json").write_bytes((release.path / "card.json").read_bytes())


def runs_without_fedseg(card: ModelCard) -> bool:
    """Return whether the network is one of MONAI's own and needs no padding of ours inside."""
    tile = _tile(card)
    return card.network.name == "unet" and padded_size(tile, size_multiple(card.network)) == tile


def inference_config(card: ModelCard, modality: str) -> dict[str, Any]:
    """Return ``inference.json`` for images of one modality; raises BadInputError ``export.not-for-monai``."""
    preprocessing = card.modalities[modality]
    if preprocessing.in_plane_size is not None or preprocessing.channels != 1:
        raise BadInputError(
            "export.not-for-monai",
            f"{card.name} prepares {modality} images in a way that MONAI's transforms do not have.",
            "Export the release in FedSegSlicer's own format.",
        )
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/segmentations'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii*'))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_parts": _network_parts(card, preprocessing),
        "network_def": "$torch.nn.Sequential(*@network_parts)",
        "network": "$@network_def.to(@device).eval()",
        "preprocessing": {"_target_": "Compose", "transforms": _preparing(preprocessing)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "inferer": _inferer(card),
        "postprocessing": {"_target_": "Compose", "transforms": _finishing(card)},
        # for programs that look for MONAI's own engine, which needs pytorch-ignite; "run" does without
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "initialize": [
            "$@network.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
            "$torch.set_grad_enabled(False)",
        ],
        "run": [_EACH_CASE],
    }


def bundle_weights(card: ModelCard, weights: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, torch.Tensor]:
    """Return the state dict of the bundle's network: the release's weights and the convolution that silences labels."""
    named = {f"1.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()}
    count = card.network.out_channels
    given = {0, *(label.value for label in card.given_labels)}
    ones = (1,) * card.network.dimensions
    named["2.weight"] = torch.eye(count).reshape(count, count, *ones)
    named["2.bias"] = torch.tensor([0.0 if value in given else SILENT for value in range(count)])
    return named


def _network_parts(card: ModelCard, preprocessing: Preprocessing) -> list[dict[str, Any]]:
    config = card.network
    if runs_without_fedseg(card):
        options = UnetOptions.model_validate(config.options)
        settings = unet_settings(config.dimensions, config.in_channels, config.out_channels, options)
        body: dict[str, Any] = {"_target_": "UNet", **json.loads(json.dumps(settings))}
    else:
        described = {"_target_": "FedSegCore.networks.config.NetworkConfig", **config.model_dump(mode="json")}
        body = {"_target_": "FedSegCore.networks.registry.build_network", "config": described}
    standardise: dict[str, Any] = {"_target_": "torch.nn.Identity"}
    if preprocessing.standardise:
        standardise = {"_target_": "torch.nn.GroupNorm", "num_groups": 1, "num_channels": config.in_channels,
                       "eps": 1e-12, "affine": False}  # fmt: skip
    silence = {
        "_target_": f"torch.nn.Conv{config.dimensions}d",
        "in_channels": config.out_channels,
        "out_channels": config.out_channels,
        "kernel_size": 1,
    }
    return [standardise, body, silence, {"_target_": "torch.nn.Softmax", "dim": 1}]


def _tile(card: ModelCard) -> tuple[int, ...]:
    return card.patch_size[1:] if card.network.dimensions == 2 else card.patch_size


def _preparing(preprocessing: Preprocessing) -> list[dict[str, Any]]:
    if preprocessing.window is not None:
        low, high = preprocessing.window
        scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": low, "a_max": high,
                 "b_min": 0.0, "b_max": 1.0, "clip": True}  # fmt: skip
    else:
        lower, upper = preprocessing.percentiles or (0.0, 100.0)
        scale = {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image", "lower": lower, "upper": upper,
                 "b_min": 0.0, "b_max": 1.0, "clip": True}  # fmt: skip
    # MONAI keeps an axis whose distance is not positive.
    distances = [-1.0 if spacing is None else spacing for spacing in reversed(preprocessing.spacing)]
    return [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "SPL", "labels": _AXES},
        scale,
        {
            "_target_": "Spacingd",
            "keys": "image",
            "pixdim": distances,
            "mode": "bilinear",
            "scale_extent": True,
            "align_corners": True,
        },
    ]


def _inferer(card: ModelCard) -> dict[str, Any]:
    common = {"roi_size": list(_tile(card)), "sw_batch_size": 4, "overlap": OVERLAP, "mode": "gaussian"}
    if card.network.dimensions == 2:
        return {"_target_": "SliceInferer", "spatial_dim": 0, **common}
    return {"_target_": "SlidingWindowInferer", **common}


def _finishing(card: ModelCard) -> list[dict[str, Any]]:
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
            "nearest_interp": False, "to_tensor": True}  # fmt: skip
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg",
            "output_dtype": "$torch.uint8", "separate_folder": False, "resample": False}  # fmt: skip
    known = {"_target_": "EnsureTyped", "keys": "pred", "device": "cpu", "track_meta": True}
    single = [label.value for label in card.given_labels if label.single]
    one_piece = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": single}
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    return [known, back, discrete, *([one_piece] if single else []), save]


def metadata(release: Release) -> dict[str, Any]:
    """Return ``metadata.json`` after MONAI's schema; scores and origin as the release's card has them."""
    card = release.card
    names = {"0": "background", **{str(label.value): label.name for label in card.contract.labels}}
    needs = {} if runs_without_fedseg(card) else {"fedsegslicer": card.software.get("fedsegslicer", __version__)}
    kinds = ", ".join(sorted(card.modalities))
    shape = {"num_channels": card.network.in_channels, "spatial_shape": ["*", "*", "*"], "dtype": "float32"}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": f"{card.version}.0.0",
        "changelog": {f"{card.version}.0.0": f"release {release.id} of the federation {card.federation}"},
        "monai_version": card.software.get("monai", ""),
        "pytorch_version": card.software.get("torch", ""),
        "numpy_version": card.software.get("numpy", ""),
        "required_packages_version": {"nibabel": "5.2", **needs},
        "optional_packages_version": {"pytorch-ignite": "0.4.11"},
        "name": release.id,
        "task": f"segmentation of {', '.join(label.name for label in card.given_labels)} in {kinds} images",
        "description": f"Trained in {card.rounds} rounds by {len(card.training_sites)} sites with their own images. "
        + _RESEARCH,
        "authors": f"the federation {card.federation}",
        "copyright": "as the federation says",
        "data_type": "nifti",
        "intended_use": _RESEARCH,
        "eval_metrics": {f"{score.metric} {score.label}": round(score.mean, 4) for score in card.scores},
        "fedseg": {"release": release.id, "signer": release.signer, "weights_sha256": card.weights_sha256},
        "network_data_format": {
            "inputs": {
                "image": {"type": "image", "format": "intensity", "modality": kinds, **shape, "value_range": [0, 1],
                          "is_patch_data": True, "channel_def": {"0": "image"}}
            },
            "outputs": {
                "pred": {"type": "image", "format": "probabilities", **shape, "value_range": [0, 1],
                         "num_channels": card.network.out_channels, "is_patch_data": True, "channel_def": names}
            },
        },
    }  # fmt: skip


_RESEARCH = "Research use only; not a medical device."

_README = """# {name}

A segmentation model of the federation *{federation}* as a MONAI bundle. {research}

It segments {labels} in {kinds} images. {needs}

Put NIfTI images into the folder `images` and run, in this folder:

    python -m monai.bundle run --config_file configs/inference.json

The label maps come into `segmentations`; 0 is background{numbers}. Other folders:
`--dataset_dir DIR --output_dir DIR`.{others}

The results are those of FedSegSlicer wherever an image has the model's spacing and more than one slice. Elsewhere they
differ a little at borders: MONAI interpolates between voxels where FedSegSlicer averages them.

`docs/card.json` is the release's model card: who trained (pseudonyms), for how long, and the scores, which are of the
model as it was before the last round's training. The bundle itself is not signed: it was made from release {name},
weights SHA-256 {sha256}, signed by {signer}. Where that matters, use the release.
"""


def _readme(release: Release) -> str:
    card = release.card
    others = [kind.lower() for kind in sorted(card.modalities)[1:]]
    alone = runs_without_fedseg(card)
    return _README.format(
        name=release.id,
        federation=card.federation,
        research=_RESEARCH,
        labels=", ".join(label.name for label in card.given_labels),
        kinds=" and ".join(sorted(card.modalities)),
        needs="It needs MONAI, PyTorch and nibabel only."
        if alone
        else f"It needs FedSegSlicer's Python package too, for its network ({card.network.name}).",
        numbers="".join(f", {label.value} {label.name}" for label in card.given_labels),
        others="".join(
            f" For {kind.upper()} images: `--config_file configs/inference_{kind}.json`." for kind in others
        ),
        sha256=card.weights_sha256,
        signer=release.signer,
    )
