"""Samples for looking at, their measures, and their picture."""

import threading
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin
from FedSegCore.augmentation.quality import gin_samples, representative_slice
from FedSegCore.augmentation.quality_picture import gin_grid, write_gin_grid
from FedSegCore.common.errors import CancelledError
from FedSegCore.common.progress import Progress


@pytest.fixture(scope="module")
def image():
    """A bright cylinder with a dark core, fullest at k = 5 of 12."""
    k, j, i = np.meshgrid(np.arange(12) - 5, np.arange(40) - 20, np.arange(48) - 24, indexing="ij")
    radius = np.hypot(j, i)
    body = (radius < 15 - np.abs(k)) * 0.7 - (radius < 5) * 0.3
    return (body + 0.02 * np.random.default_rng(0).random(body.shape)).clip(0, 1)[None].astype(np.float32)


def test_the_slice_with_most_body_represents_the_image(image):
    assert representative_slice(image) == 5
    assert representative_slice(image[:, 5:6]) == 0
    assert representative_slice(np.zeros((1, 1, 4, 4), np.float32)) == 0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_samples_are_what_their_parameters_give(image, dimensions, tmp_path):
    drawn = gin_samples(image, GinConfig(), samples=3, seed=1, dimensions=dimensions, spacing=(1.0, 2.0, 5.0))
    assert drawn.aspect == 2.0
    np.testing.assert_array_equal(drawn.original, image[:, 5])
    for sample in drawn.samples:
        sample.parameters.save(tmp_path / "gin.safetensors")
        again = GinParameters.load(tmp_path / "gin.safetensors")
        if dimensions == 3:
            expected = apply_gin(torch.from_numpy(image)[None], again)[0].numpy()[:, 5]
        else:
            expected = apply_gin(torch.from_numpy(image[:, 5])[None], again)[0].numpy()
        np.testing.assert_array_equal(sample.slice, expected)
    more = gin_samples(image, GinConfig(), samples=5, seed=1, dimensions=dimensions)
    np.testing.assert_array_equal(more.samples[2].slice, drawn.samples[2].slice)
    assert [sample.number for sample in more.samples] == [0, 1, 2, 3, 4]
    assert len({sample.alpha for sample in more.samples}) == 5


def test_measures_of_no_change_and_of_inverted_contrast(image):
    same = gin_samples(image, GinConfig(probability=0.0), samples=1, seed=0).samples[0]
    assert (same.alpha, same.histogram_distance) == (0.0, 0.0)
    assert same.correlation == pytest.approx(1.0)
    assert same.edges == pytest.approx(1.0)
    drawn = gin_samples(image, GinConfig(alpha=(1.0, 1.0)), samples=20, seed=0).samples
    for sample in drawn:
        rim = sum(kernel.shape[-1] // 2 for kernel in sample.parameters.kernels)
        inside = (0, slice(rim, 40 - rim), slice(rim, 48 - rim))
        expected = np.corrcoef(image[:, 5][inside].ravel(), sample.slice[inside].ravel())[0, 1]
        assert sample.correlation == pytest.approx(expected, abs=1e-5)
    assert any(sample.correlation < -0.5 and sample.edges > 0.5 for sample in drawn)


def test_uniform_slices_have_measures_too():
    drawn = gin_samples(np.zeros((1, 1, 6, 6), np.float32), GinConfig(), samples=1, seed=0, dimensions=2)
    sample = drawn.samples[0]
    assert (sample.histogram_distance, sample.correlation, sample.edges) == (0.0, 0.0, 0.0)
    assert gin_grid(drawn).startswith(b"\x89PNG")


def test_a_slice_outside_the_image_is_refused(image):
    for index in (-1, 12):
        with pytest.raises(ValueError, match="not among"):
            gin_samples(image, GinConfig(), samples=1, seed=0, slice_index=index)


def test_progress_is_told_and_cancelling_stops(image):
    told = []
    gin_samples(image, GinConfig(), samples=2, seed=0, progress=Progress(lambda fraction, stage: told.append(fraction)))
    assert told == [0.0, 0.5, 1.0]
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        gin_samples(image, GinConfig(), samples=2, seed=0, progress=Progress(cancelled=cancelled))


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_shows_every_sample_and_is_written_whole(image, channels, tmp_path):
    colour = np.repeat(image, channels, axis=0)
    drawn = gin_samples(colour, GinConfig(), samples=5, seed=3, dimensions=2)
    path = tmp_path / "gin.png"
    write_gin_grid(drawn, path)
    assert path.read_bytes() == gin_grid(drawn)
    picture = np.asarray(Image.open(BytesIO(path.read_bytes())).convert("L"))
    # Six panels with dark corners (the images' background) on white paper: three columns, two rows.
    dark_columns = (picture < 60).mean(axis=0) > 0.05
    dark_rows = (picture < 60).mean(axis=1) > 0.05
    assert np.diff(dark_columns.astype(int)).tolist().count(1) >= 3
    assert np.diff(dark_rows.astype(int)).tolist().count(1) >= 2
    assert [file.name for file in tmp_path.iterdir()] == ["gin.png"]


def test_drawing_pictures_leaves_no_global_matplotlib_state(image):
    import sys

    gin_grid(gin_samples(image, GinConfig(), samples=1, seed=0))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
