import itertools

import numpy as np
import pytest
import torch
from blob_scans import AXIAL, CT, ball_scan, centred, dice, publish
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError, CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.inference import segmenter as segmenter_module
from FedSegCore.inference.devices import card_fails
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.inference.weights import weights_of
from FedSegCore.models.release import list_releases, open_release
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.preparation import is_across
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume


@pytest.fixture(scope="module")
def release(releases):
    return list_releases(releases)[0]


@pytest.fixture(scope="module")
def a_segmenter():
    return Segmenter("cpu")


def turned(degrees: float, axis: int) -> np.ndarray:
    angle = np.deg2rad(degrees)
    one, other = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    matrix[[one, one, other, other], [one, other, one, other]] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    return matrix


GRIDS = {
    "axial": centred((10, 34, 30)),
    "left and right, front and back flipped": centred((10, 34, 30), direction=np.diag([-1.0, -1.0, 1.0])),
    "feet first": centred((10, 34, 30), direction=np.diag([1.0, 1.0, -1.0])),
    "sagittal slices": centred((30, 30, 14), (6.0, 3.0, 3.0), AXIAL[:, [2, 1, 0]]),
    "coronal slices": centred((30, 14, 32), (3.0, 6.0, 3.0), AXIAL[:, [0, 2, 1]]),
    "oblique": centred((10, 40, 40), direction=turned(12, 2) @ turned(8, 0)),
    "fine and anisotropic": centred((6, 70, 110), (1.0, 1.5, 9.0)),
    "one slice": centred((1, 34, 30)),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_a_ball_is_found_where_it_is_on_exactly_the_grid_of_the_image(grid, a_segmenter, release):
    image, ball = ball_scan(grid, seed=77)
    found = a_segmenter.segment(image, release)
    assert found.labels.grid == grid
    assert found.labels.array.dtype == np.uint8
    assert dice(found.labels.array[0] == 1, ball) > 0.85
    assert not (found.labels.array == 2).any()
    assert set(found.confidence) == {"ball"}
    assert 0.5 < found.confidence["ball"] <= 1.0
    assert (found.modality, found.device, found.notes) == ("CT", "cpu", ())
    assert found.seconds > 0


quarters = st.integers(-180, 180)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(quarters, quarters, quarters),
    flip=st.booleans(),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 24), st.integers(1, 24)),
    spacing=st.tuples(*[st.floats(0.4, 9.0) for _ in range(3)]),
    origin=st.tuples(*[st.floats(-900.0, 900.0) for _ in range(3)]),
    seed=st.integers(0, 99),
)
def test_any_placement_of_an_image_survives(a_segmenter, release, angles, flip, shape, spacing, origin, seed):
    direction = turned(angles[0], 0) @ turned(angles[1], 1) @ turned(angles[2], 2) @ np.diag([1, 1, -1 if flip else 1])
    grid = Grid(shape, spacing, origin, tuple(np.ravel(direction).tolist()))
    array = np.random.default_rng(seed).integers(-1000, 300, (1, *shape)).astype(np.int16)
    array.flat[0] = -1000
    if is_across(grid):
        with pytest.raises(BadInputError, match=r"image\.not-axial"):
            a_segmenter.segment(Volume(array, grid, "CT"), release)
        return
    found = a_segmenter.segment(Volume(array, grid, "CT"), release)
    assert found.labels.grid == grid
    assert found.labels.array.shape == (1, *shape)
    assert set(np.unique(found.labels.array)) <= {0, 1, 2}


def test_the_network_stays_in_memory_between_volumes(releases, tmp_path, a_segmenter):
    import shutil

    copy = shutil.copytree(releases, tmp_path / "releases")
    release = open_release(next(copy.iterdir()))
    image, _ = ball_scan(centred((2, 32, 32)))
    segmenter = Segmenter("cpu")
    first = segmenter.segment(image, release)
    (release.path / "weights.safetensors").unlink()
    second = segmenter.segment(image, release)
    np.testing.assert_array_equal(first.labels.array, second.labels.array)
    with pytest.raises(BadInputError):
        Segmenter("cpu").segment(image, release)


def test_a_card_that_cannot_be_used_is_told_with_the_result(release, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("the graphics card here works")
    card_fails.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and this build of torch has no code for it
    segmenter = Segmenter("auto")
    monkeypatch.undo()
    card_fails.cache_clear()
    found = segmenter.segment(ball_scan(centred((2, 32, 32)))[0], release)
    assert found.device == "cpu"
    assert found.notes == ("The graphics card does not work with this PyTorch; the processor is used.",)


def test_another_release_replaces_the_network(releases, tmp_path, release):
    network = NetworkConfig(dimensions=2, out_channels=3, options={"channels": [4, 8]})
    weights = weights_of(build_network(network))
    for name, array in weights.items():
        weights[name] = np.zeros_like(array)
    other = open_release(publish(tmp_path / "releases", "blind-CT", {"CT": CT}, weights, network))
    image, _ = ball_scan(centred((2, 32, 32)))
    segmenter = Segmenter("cpu")
    assert segmenter.segment(image, release).labels.array.any()
    assert not segmenter.segment(image, other).labels.array.any()  # all logits equal: background comes first
    assert segmenter.segment(image, release).labels.array.any()


def test_a_huge_result_goes_back_as_labels_with_the_same_place(monkeypatch, a_segmenter, release):
    grid = GRIDS["fine and anisotropic"]
    image, ball = ball_scan(grid, seed=5)
    first = a_segmenter.segment(image, release)
    usual = dice(first.labels.array[0] == 1, ball)
    monkeypatch.setattr(segmenter_module, "SCORES_BYTES", 1000)
    found = a_segmenter.segment(image, release)
    rough = dice(found.labels.array[0] == 1, ball)
    assert found.labels.grid == grid
    assert found.confidence == {"ball": pytest.approx(first.confidence["ball"], abs=0.05)}
    assert 0.8 < rough <= usual  # probabilities carried back give the finer border


def test_an_image_of_another_modality_is_refused(a_segmenter, release):
    image, _ = ball_scan(centred((2, 32, 32)))
    with pytest.raises(BadInputError, match=r"release\.wrong-modality"):
        a_segmenter.segment(image, release, modality="MR")


def test_an_image_of_unknown_modality_is_taken_for_the_releases_only_one(a_segmenter, release):
    image, _ = ball_scan(centred((2, 32, 32)))
    assert a_segmenter.segment(Volume(image.array, image.grid), release).modality == "CT"


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path, a_segmenter):
    network = NetworkConfig(dimensions=2, out_channels=3, options={"channels": [4, 8]})
    weights = weights_of(build_network(network))
    wider = network.model_copy(update={"options": {"channels": [4, 16]}})
    release = open_release(publish(tmp_path / "releases", "odd", {"CT": CT}, weights, wider))
    image, _ = ball_scan(centred((2, 32, 32)))
    with pytest.raises(BadInputError, match=r"weights\.shape-differs"):
        a_segmenter.segment(image, release)


def test_a_3d_release_segments_with_3d_tiles(tmp_path, a_segmenter):
    network = NetworkConfig(dimensions=3, out_channels=3, options={"channels": [4, 8]})
    torch.manual_seed(1)
    weights = weights_of(build_network(network))
    coarse = Preprocessing(modality="CT", spacing=(4.0, 4.0, 6.0), window=(-160.0, 240.0))
    release = open_release(publish(tmp_path / "releases", "volumes", {"CT": coarse}, weights, network, (4, 16, 16)))
    grid = centred((9, 41, 37), (2.0, 2.0, 4.0), turned(5, 1))
    seen = []
    found = a_segmenter.segment(ball_scan(grid)[0], release, Progress(lambda fraction, _stage: seen.append(fraction)))
    assert found.labels.grid == grid
    assert len(seen) > 10  # tiles of 4 x 16 x 16 over 6 x 20 x 18 voxels
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_network_for_volumes_is_laid_out_for_the_processor_and_says_the_same(tmp_path):
    config = NetworkConfig(dimensions=3, out_channels=3, options={"channels": [4, 8]})
    torch.manual_seed(1)
    plain = build_network(config).eval()
    release = open_release(
        publish(tmp_path / "releases", "volumes", {"CT": CT}, weights_of(plain), config, (8, 16, 16))
    )
    network = Segmenter("cpu")._network_of(release)
    kernels = [weight for weight in network.parameters() if weight.ndim == 5]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last_3d) for kernel in kernels)
    tile = torch.rand(1, 1, 8, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(network(tile), plain(tile), rtol=0, atol=1e-5)


def test_cancelling_ends_it_at_the_next_tile(a_segmenter, release):
    image, _ = ball_scan(centred((30, 32, 32)))
    counter = itertools.count()

    def report(_fraction: float, stage: str) -> None:
        if "tile" in stage and next(counter) == 2:
            progress.cancel()

    progress = Progress(report)
    with pytest.raises(CancelledError):
        a_segmenter.segment(image, release, progress)
