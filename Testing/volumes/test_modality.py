"""Guessing the modality, and describing an image."""

import json

import numpy as np
import pytest

from FedSegCore.volumes.description import describe_volume
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.volume import Grid, Volume


def volume(array: np.ndarray, **kwargs) -> Volume:
    return Volume(array, Grid(array.shape[1:]), **kwargs)


def noise(shape=(1, 6, 64, 64)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def body(shape=(1, 6, 64, 64)) -> np.ndarray:
    """Return 1 in a disc in the middle of every slice, else 0."""
    j, i = np.indices(shape[2:]) - np.array(shape[2:]).reshape(2, 1, 1) / 2
    return np.broadcast_to((np.hypot(j, i) < 0.4 * shape[2]).astype(float), shape)


def test_what_is_said_is_certain():
    said = detect_modality(volume(noise(), modality="PT", metadata={"modality_from": "file"}))
    assert (said.modality, said.confidence) == ("PT", 1.0)
    assert "file" in said.reason
    assert "you" in detect_modality(volume(noise(), modality="CT", metadata={"modality_from": "user"})).reason


def test_hounsfield_units_are_ct():
    scan = np.where(body() > 0, 50, -1000) + 15 * noise()
    guess = detect_modality(volume(scan.astype(np.int16)))
    assert guess.modality == "CT"
    assert guess.confidence >= 0.9


def test_ct_inside_the_body_is_less_certain():
    guess = detect_modality(volume((100 * noise()).astype(np.int16)))
    assert guess.modality == "CT"
    assert guess.confidence < 0.7


def test_scanner_units_and_z_scores_are_mr():
    scan = np.abs(body() * 400 + 20 * noise()).astype(np.uint16)
    guess = detect_modality(volume(scan))
    assert (guess.modality, guess.confidence) == ("MR", 0.75)
    scores = (scan - scan.mean()) / scan.std()
    assert detect_modality(volume(scores.astype(np.float32))).modality == "MR"


def test_wide_picture_is_ultrasound_and_square_grain_too():
    shape = (1, 1, 64, 96)
    grey = np.clip(90 + 20 * noise(shape), 0, 255).astype(np.uint8)
    assert detect_modality(volume(grey)).modality == "US"
    brightness = np.linspace(20, 120, 128)[:, None]
    speckle = brightness * np.random.default_rng(2).rayleigh(0.8, (1, 1, 128, 128))
    assert detect_modality(volume(np.clip(speckle, 0, 255).astype(np.uint8))).modality == "US"


def test_windowed_ct_is_an_honest_maybe():
    scan = np.where(body() > 0, 120 + 90 * noise(), 0)
    guess = detect_modality(volume(np.clip(scan, 0, 255).astype(np.uint8)))
    assert guess.modality == "CT"
    assert guess.confidence < 0.5


def test_red_pictures_are_endoscopy():
    picture = np.stack([np.full((1, 40, 60), value) for value in (190, 90, 70)]).astype(np.uint8)
    picture[:, :, :10] = 0
    guess = detect_modality(volume(picture))
    assert guess.modality == "ES"
    assert guess.confidence >= 0.8


def test_description_is_json_and_right():
    turned = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0)
    array = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4) - 5
    facts = describe_volume(Volume(array, Grid((2, 3, 4), (0.5, 0.6, 3.0), (1, 2, 3), turned), source="nifti"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["shape"] == [4, 3, 2]
    # Column 0 points to -z (inferior), column 1 to +x (left), column 2 to -y (anterior).
    assert facts["orientation"] == "ILA"
    assert facts["oblique"] is False
    assert facts["value_range"] == [-5.0, 18.0]
    angle = np.radians(5)
    tilt = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    assert describe_volume(Volume(array, Grid((2, 3, 4), direction=tuple(map(float, tilt)))))["oblique"] is True


@pytest.mark.parametrize(
    ("folder", "expected", "least"),
    [
        ("ct_abdomen_btcv", "CT", 0.3),
        ("mr_abdomen_chaos_t2", "MR", 0.7),
        ("mr_brain_hippocampus_msd", "MR", 0.4),
        ("mr_pancreas_panseg_t2", "MR", 0.4),
        ("us_abdomen_rus", "US", 0.6),
        ("us_breast_busi", "US", 0.6),
        ("us_fetalhead_hc18", "US", 0.6),
        ("polyp_polypgen", "ES", 0.8),
    ],
)
def test_real_images(real_data, folder, expected, least):
    paths = sorted((real_data / folder).glob("*_img.*"))[:4]
    assert paths
    for path in paths:
        guess = detect_modality(read_volume(path))
        assert guess.modality == expected
        assert guess.confidence >= least


def test_confidence_is_about_how_often_real_guesses_are_right(real_data):
    wrong = [
        path.name
        for folder, expected in (("ct_abdomen_curvas", "CT"), ("mr_brain_brisc", "MR"), ("ct_liver_lits", "CT"))
        for path in sorted((real_data / folder).glob("*_img.*"))[:10]
        if (guess := detect_modality(read_volume(path))).confidence >= 0.7 and guess.modality != expected
    ]
    assert wrong == []
