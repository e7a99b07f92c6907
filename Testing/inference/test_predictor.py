import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference

from FedSegCore.common.errors import CancelledError, CannotDoHereError, UsageError
from FedSegCore.common.progress import Progress
from FedSegCore.inference import predictor as predictor_module
from FedSegCore.inference.devices import card_fails, card_note, choose_device, describe_device, is_out_of_memory
from FedSegCore.inference.predictor import Predictor, Tiling, make_predictor, tile_count
from FedSegCore.networks.config import NetworkConfig

CPU = torch.device("cpu")


class PointByPoint(torch.nn.Module):
    """Logits 4·(x - 0.5) and its negative: what a voxel gives depends on that voxel only, wherever its tile lies."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most = most
        self.tiles = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.tiles += len(images)
        logit = 4.0 * (images - 0.5)
        return torch.cat([-logit, logit], dim=1)


def expected(image: np.ndarray) -> np.ndarray:
    logit = 4.0 * (image[0].astype(np.float64) - 0.5)
    return 1.0 / (1.0 + np.exp(-2.0 * logit))


def an_image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, *shape)).astype(np.float32)


def a_predictor(dimensions: int, patch=(8, 16, 16), network=None, **changes) -> Predictor:
    config = NetworkConfig(dimensions=dimensions, out_channels=2)
    tiling = Tiling(patch, CPU, changes.pop("tiles_at_once", 2))
    return Predictor(network or PointByPoint(), config, tiling, standardise=False, **changes)


@settings(max_examples=25, deadline=None)
@given(
    dimensions=st.sampled_from([2, 3]),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40)),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
)
def test_tiles_are_put_together_without_seams_whatever_the_size(dimensions, shape, overlap):
    image = an_image(*shape)
    predictor = a_predictor(dimensions, overlap=overlap)
    scores = predictor.probabilities(image, Progress())
    assert scores.shape == (2, *shape)
    np.testing.assert_allclose(scores[1], expected(image), atol=2e-3)
    per_image = tile_count(shape, (8, 16, 16), overlap) if dimensions == 3 else tile_count(shape[1:], (16, 16), overlap)
    assert predictor.network.tiles == per_image * (1 if dimensions == 3 else shape[0])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_working_block_by_block_along_k_gives_the_same(dimensions, monkeypatch):
    image = an_image(50, 20, 20)
    whole = a_predictor(dimensions).labels(image, Progress())
    monkeypatch.setattr(predictor_module, "BLOCK_BYTES", 4 * 4 * 20 * 20 * 20)  # twenty slices
    predictor = a_predictor(dimensions)
    assert len(predictor._plan(image.shape)) > 1
    np.testing.assert_array_equal(predictor.labels(image, Progress()), whole)
    np.testing.assert_array_equal(whole, expected(image) > 0.5)


def test_every_tile_is_standardised_as_in_training():
    # One tile of 16 x 16 holds the slice: zero mean, unit variance, worked out here by NumPy.
    image = 7.0 + 3.0 * an_image(3, 16, 16)
    predictor = make_predictor(
        PointByPoint(), NetworkConfig(dimensions=2, out_channels=2), (1, 16, 16), CPU, standardise=True
    )
    scores = predictor.probabilities(image, Progress())
    means, spreads = image.mean((2, 3), keepdims=True), image.std((2, 3), keepdims=True)
    np.testing.assert_allclose(scores[1], expected((image - means) / spreads), atol=2e-3)


class ThreeChannels(torch.nn.Module):
    """Channel 2 always wins, channel 1 comes before the background where the image is bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(images), images - 0.5, torch.full_like(images, 9.0)], dim=1)


def test_labels_no_site_annotated_are_never_given():
    image = an_image(2, 16, 16)
    config = NetworkConfig(dimensions=2, out_channels=3)
    everything = Predictor(ThreeChannels(), config, Tiling((1, 16, 16), CPU, 2), standardise=False)
    assert (everything.labels(image, Progress()) == 2).all()
    taught = Predictor(ThreeChannels(), config, Tiling((1, 16, 16), CPU, 2), standardise=False, values=[1])
    np.testing.assert_array_equal(taught.labels(image, Progress()), image[0] > 0.5)
    assert (taught.probabilities(image, Progress())[2] == 0).all()


def test_progress_is_told_per_tile_and_cancels_at_the_next():
    told = []

    def report(fraction: float, _stage: str) -> None:
        told.append(fraction)
        if len(told) == 3:
            progress.cancel()

    progress = Progress(report)
    predictor = a_predictor(3, tiles_at_once=1)
    with pytest.raises(CancelledError):
        predictor.labels(an_image(30, 40, 40), progress)
    assert predictor.network.tiles == 3
    assert told == sorted(told)


def test_short_memory_means_fewer_tiles_then_smaller_ones_and_says_so():
    image = an_image(64, 64, 64)
    predictor = a_predictor(3, (64, 64, 64), PointByPoint(most=32**3))
    labels = predictor.labels(image, Progress())
    np.testing.assert_array_equal(labels, expected(image) > 0.5)
    assert predictor.tiling == Tiling((32, 32, 32), CPU, 1)
    assert [note.split(";")[0] for note in predictor.notes] == ["Memory is short", "Memory is short"]


@pytest.mark.parametrize("standardise", [True, False])
def test_short_memory_on_a_card_changes_no_result(standardise, monkeypatch):
    # Standardised by itself, a smaller tile of this ramp would be another image, with other labels.
    image = np.linspace(0, 1, 64**3, dtype=np.float32).reshape(1, 64, 64, 64) ** 2
    config = NetworkConfig(dimensions=3, out_channels=2)

    def with_a_full_card(*args, sw_device, **options):
        if sw_device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return sliding_window_inference(*args, sw_device=sw_device, **options)

    monkeypatch.setattr(predictor_module, "sliding_window_inference", with_a_full_card)
    alone, short = (
        Predictor(PointByPoint(), config, Tiling((64, 64, 64), device, 2), standardise)
        for device in (CPU, torch.device("cuda"))
    )
    np.testing.assert_array_equal(short.labels(image, Progress()), alone.labels(image, Progress()))
    assert short.tiling == Tiling((64, 64, 64), CPU, 1)
    assert "the processor is used" in short.notes[-1]
    assert ("smaller tiles" in " ".join(short.notes)) is not standardise


def test_where_tiles_are_standardised_the_processor_takes_no_smaller_ones_either():
    predictor = Predictor(
        PointByPoint(most=32**3), NetworkConfig(dimensions=3, out_channels=2), Tiling((64, 64, 64), CPU, 2)
    )
    with pytest.raises(CannotDoHereError, match=r"device\.memory"):
        predictor.labels(an_image(64, 64, 64), Progress())


def test_after_all_else_the_processor_is_used_and_then_it_is_said_that_nothing_helps():
    cuda = Tiling((16, 32, 32), torch.device("cuda"), 1)
    assert cuda.easier((64, 64, 64), smaller=True) == Tiling((64, 64, 64), CPU, 1)
    with pytest.raises(CannotDoHereError, match=r"device\.memory"):
        a_predictor(3, (32, 32, 32), PointByPoint(most=10)).labels(an_image(32, 32, 32), Progress())


def test_other_failures_of_a_network_are_not_taken_for_lack_of_memory():
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        a_predictor(3, network=Broken()).labels(an_image(8, 8, 8), Progress())


def test_devices_are_chosen_or_refused_in_words():
    assert choose_device("cpu") == CPU
    assert "processor" in describe_device(CPU)
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match=r"device\.unknown"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(CannotDoHereError, match=r"device\.unavailable"):
            choose_device("cuda")


def test_a_card_that_torch_sees_but_cannot_use_is_left_for_the_processor(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("the graphics card here works")
    card_fails.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and this build of torch has no code for it
    assert choose_device("auto") == CPU
    assert "graphics card does not work" in card_note("auto", CPU)
    assert card_note("cpu", CPU) is None
    with pytest.raises(CannotDoHereError, match=r"device\.unavailable"):
        choose_device("cuda")
    card_fails.cache_clear()


def raised_from(cause: Exception) -> RuntimeError:
    error = RuntimeError("patch size (32, 32), mode=gaussian")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (raised_from(torch.OutOfMemoryError("CUDA out of memory")), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
        (raised_from(ValueError("mode")), False),
    ],
)
def test_lack_of_memory_is_known_by_all_its_names(error, short):
    assert is_out_of_memory(error) is short
