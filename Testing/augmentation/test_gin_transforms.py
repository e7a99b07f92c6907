"""GIN inside MONAI pipelines."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ScaleIntensityd, ToTensord

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import apply_gin
from FedSegCore.augmentation.transforms import RandGlobalIntensityNonlinear, RandGlobalIntensityNonlineard

IMAGE = np.random.default_rng(0).random((1, 6, 10, 12), dtype=np.float32)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, MetaTensor])
def test_array_form_keeps_the_kind_of_image_and_replays(kind):
    image = kind(IMAGE)
    transform = RandGlobalIntensityNonlinear().set_random_state(seed=3)
    changed = transform(image)
    assert type(changed) is type(image)
    expected = apply_gin(torch.from_numpy(IMAGE)[None], transform.parameters)[0].numpy()
    np.testing.assert_array_equal(np.asarray(changed), expected)
    assert np.abs(expected - IMAGE).max() > 1e-3
    np.testing.assert_array_equal(np.asarray(transform(image, randomize=False)), expected)
    again = RandGlobalIntensityNonlinear().set_random_state(seed=3)(image)
    np.testing.assert_array_equal(np.asarray(again), expected)
    assert not np.array_equal(np.asarray(transform(image)), expected)


def test_meta_data_and_input_survive():
    image = MetaTensor(torch.from_numpy(IMAGE.copy()), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    changed = RandGlobalIntensityNonlinear()(image)
    assert torch.equal(changed.affine, image.affine)
    np.testing.assert_array_equal(image.numpy(), IMAGE)


def test_probability_zero_never_changes_an_image():
    transform = RandGlobalIntensityNonlinear(GinConfig(probability=0.0))
    for _ in range(5):
        np.testing.assert_array_equal(transform(IMAGE), IMAGE)


def test_applying_before_drawing_is_refused():
    with pytest.raises(RuntimeError, match="randomize"):
        RandGlobalIntensityNonlinear()(IMAGE, randomize=False)


def test_dictionary_form_in_compose_leaves_labels_and_other_keys_alone():
    label = (IMAGE > 0.5).astype(np.uint8)
    pipeline = Compose(
        [ScaleIntensityd("image"), RandGlobalIntensityNonlineard("image"), ToTensord(["image", "label"])]
    ).set_random_state(seed=1)
    given = {"image": IMAGE.copy(), "label": label.copy(), "name": "case"}
    one = pipeline(given)
    two = pipeline(given)
    np.testing.assert_array_equal(given["image"], IMAGE)
    np.testing.assert_array_equal(one["label"].numpy(), label)
    assert one["name"] == "case"
    assert not torch.equal(one["image"], two["image"])
    pipeline.set_random_state(seed=1)
    assert torch.equal(pipeline(given)["image"], one["image"])


def test_dictionary_form_changes_all_keys_alike():
    transform = RandGlobalIntensityNonlineard(["t1", "t2"]).set_random_state(seed=1)
    changed = transform({"t1": IMAGE, "t2": IMAGE})
    np.testing.assert_array_equal(changed["t1"], changed["t2"])
    np.testing.assert_array_equal(
        changed["t1"], apply_gin(torch.from_numpy(IMAGE)[None], transform.transform.parameters)[0].numpy()
    )


def test_missing_keys():
    assert RandGlobalIntensityNonlineard("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError):
        RandGlobalIntensityNonlineard("image")({"other": 1})


def test_ipa_is_refused_and_not_passed_over():
    with pytest.raises(ValueError, match="two outputs"):
        RandGlobalIntensityNonlinear(GinConfig(ipa=True))
    with pytest.raises(ValueError, match="two outputs"):
        RandGlobalIntensityNonlineard(["image"], GinConfig(ipa=True))
