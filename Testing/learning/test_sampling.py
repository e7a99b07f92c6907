import math
from collections import Counter

import numpy as np
import pytest
import torch
from blob_cohort import CONTRACT, blob_case
from hypothesis import given, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.cohort import PreparedCase
from FedSegCore.learning.config import OversamplingConfig, TrainingConfig
from FedSegCore.learning.fedgs import small_lesion_tickets
from FedSegCore.learning.sampling import PatchSampler
from FedSegCore.volumes.volume import Grid


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered_case(shape: tuple[int, int, int]) -> PreparedCase:
    """Voxel n (counted from 1) is n / 2048, exact in float16, so that a patch tells where it comes from."""
    image = (np.arange(1, np.prod(shape) + 1) / 2048.0).reshape(1, *shape).astype(np.float16)
    labels = ((np.arange(np.prod(shape)) % 7) == 0).astype(np.uint8).reshape(shape)
    return PreparedCase("n", "n", image, labels, Grid(shape), (1,))


sides = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(sides, sides, sides),
    patch=st.tuples(sides, sides, sides),
    dimensions=st.sampled_from([2, 3]),
    fraction=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_patches_are_unbroken_pieces_of_the_image_padded_with_nothing(shape, patch, dimensions, fraction, seed):
    case = numbered_case(shape)
    sampler = PatchSampler([case], dimensions, patch, fraction)
    for batch in sampler.batches(2, 3, generator(seed)):
        size = patch if dimensions == 3 else patch[1:]
        assert batch.images.shape == (3, 1, *size)
        assert batch.labels.shape == (3, *size)
        for image, labels in zip(batch.images[:, 0].numpy(), batch.labels.numpy(), strict=True):
            if dimensions == 2:
                image, labels = image[None], labels[None]
            numbers = np.rint(image * 2048).astype(int)
            where = np.argwhere(numbers > 0)
            expected_size = [1 if dimensions == 2 and axis == 0 else min(shape[axis], patch[axis]) for axis in range(3)]
            assert len(where) == np.prod(expected_size)
            places = np.stack(np.unravel_index(numbers[tuple(where.T)] - 1, shape), axis=1)
            assert len(np.unique(places - where, axis=0)) == 1  # one shift for all: nothing is torn or mirrored
            np.testing.assert_array_equal(labels[tuple(where.T)], case.labels[tuple(places.T)])
            assert labels.sum() == case.labels[tuple(places.T)].sum()  # padding is background


def test_an_epoch_without_foreground_preference_shows_every_slice_once():
    case = numbered_case((10, 4, 4))
    sampler = PatchSampler([case], 2, (1, 4, 4), 0.0)
    seen = [float(image[0, 0, 0]) for batch in sampler.batches(5, 2, generator()) for image in batch.images]
    assert sorted(seen) == [float(case.image[0, k, 0, 0]) for k in range(10)]


def rare_and_common() -> list[PreparedCase]:
    """Label 2 is one voxel in one of four cases; label 1 is a large block in each."""
    cases = []
    for number in range(4):
        labels = np.zeros((12, 12, 12), np.uint8)
        labels[:6, :6, :6] = 1
        if number == 3:
            labels[10, 10, 10] = 2
        image = np.full((1, 12, 12, 12), number / 4, np.float16)
        cases.append(PreparedCase(f"{number}", f"{number}", image, labels, Grid((12, 12, 12)), (1, 2)))
    return cases


@pytest.mark.parametrize("dimensions", [2, 3])
def test_labels_take_turns_however_rare(dimensions):
    sampler = PatchSampler(rare_and_common(), dimensions, (1, 3, 3) if dimensions == 2 else (3, 3, 3), 1.0)
    batch = next(sampler.batches(1, 40, generator()))
    holding = Counter(int(labels.max()) for labels in batch.labels)
    assert holding == {1: 20, 2: 20}


@pytest.mark.parametrize(("fraction", "count", "least"), [(0.7, 10, 7), (0.25, 8, 2), (0.0, 8, 0), (1.0, 5, 5)])
def test_the_foreground_share_is_kept(fraction, count, least):
    labels = np.zeros((1, 200, 200), np.uint8)
    labels[0, 100, 100] = 1
    case = PreparedCase("a", "a", np.zeros((1, 1, 200, 200), np.float16), labels, Grid((1, 200, 200)), (1,))
    sampler = PatchSampler([case], 2, (1, 1, 1), fraction)  # a chance hit has odds of 1 in 40 000
    found = sum(int((b.labels == 1).sum()) for b in sampler.batches(count, 1, generator()))
    assert found == least


def half_empty(share: int) -> list[PreparedCase]:
    """One case of 40 slices; the first ``share`` hold label 1; slice k is k / 64 everywhere."""
    labels = np.zeros((40, 2, 2), np.uint8)
    labels[:share] = 1
    image = np.broadcast_to(np.arange(40, dtype=np.float16)[None, :, None, None] / 64, (1, 40, 2, 2))
    return [PreparedCase("a", "a", np.ascontiguousarray(image), labels, Grid((40, 2, 2)), (1,))]


@pytest.mark.parametrize(("share", "expected"), [(30, 6.0), (13, 2.6), (1, 1.0), (39, 7.0)])
def test_stratified_batches_hold_both_kinds_in_the_cohorts_ratio(share, expected):
    """Batches of 8 of 40 slices: 8 · 30/40 = 6, 8 · 13/40 = 2.6; 8 · 1/40 and 8 · 39/40 are brought to 1 and 7."""
    sampler = PatchSampler(half_empty(share), 2, (1, 2, 2), 0.0, stratified=True)
    holding = [int(b.labels.flatten(1).any(1).sum()) for b in sampler.batches(400, 8, generator())]
    assert 1 <= min(holding) <= max(holding) <= 7
    assert set(holding) <= {int(expected), math.ceil(expected)}
    assert np.mean(holding) == pytest.approx(expected, abs=0.08)


def test_stratified_batches_show_every_slice_before_one_twice():
    sampler = PatchSampler(half_empty(20), 2, (1, 2, 2), 0.0, stratified=True)
    seen = [round(float(image[0, 0, 0]) * 64) for b in sampler.batches(5, 8, generator()) for image in b.images]
    assert sorted(seen) == list(range(40))
    # which come first is left to chance, so that a batch cut short has both kinds too
    kinds = [(b.labels.flatten(1).any(1)).tolist() for b in sampler.batches(20, 8, generator())]
    assert len({tuple(kind) for kind in kinds}) > 5


@pytest.mark.parametrize("share", [0, 40])
def test_stratified_batches_of_one_kind_only(share):
    sampler = PatchSampler(half_empty(share), 2, (1, 2, 2), 0.0, stratified=True)
    batch = next(sampler.batches(1, 8, generator()))
    assert bool(batch.labels.flatten(1).any(1).all()) == (share == 40)


def test_stratified_leaves_no_room_for_other_preferences():
    for more in ({}, {"foreground_fraction": 0.0, "oversampling": {}}):
        with pytest.raises(ValueError, match="stratified batches need"):
            TrainingConfig(stratified=True, **more)
    assert TrainingConfig(stratified=True, foreground_fraction=0.0).stratified


def test_the_same_generator_gives_the_same_batches_and_another_gives_others():
    sampler = PatchSampler([blob_case(0), blob_case(1)], 3, (4, 16, 16), 0.5)
    first, again, other = (torch.cat([b.images for b in sampler.batches(3, 2, generator(seed))]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_a_case_annotates_comes_with_its_patches():
    cases = [blob_case(0, annotated=(2,)), blob_case(1, annotated=(1, 2))]
    sampler = PatchSampler(cases, 3, (4, 16, 16), 0.0)
    batch = next(sampler.batches(1, 2, generator()))
    mask = batch.annotated_mask(2)
    assert sorted(mask.tolist()) == [[False, True], [True, True]]
    assert batch.first(1).images.shape[0] == 1


def test_a_cohort_without_any_foreground_is_sampled_all_the_same():
    image, labels = np.ones((1, 2, 4, 4), np.float16), np.zeros((2, 4, 4), np.uint8)
    case = PreparedCase("a", "a", image, labels, Grid((2, 4, 4)), (1,))
    batch = next(PatchSampler([case], 2, (1, 4, 4), 1.0).batches(1, 2, generator()))
    assert float(batch.images.min()) == 1.0


def one_small_among_large() -> list[PreparedCase]:
    """Ten slices of 100 pixels: slice 0 holds a lesion of 1, slices 1 to 3 one of 25, the others nothing."""
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[0, 0, 0] = 1
    labels[1:4, :5, :5] = 1
    image = np.broadcast_to(np.arange(10, dtype=np.float16)[None, :, None, None] / 16, (1, 10, 10, 10))
    return [PreparedCase("a", "a", np.ascontiguousarray(image), labels, Grid((10, 10, 10)), (1,))]


def test_small_lesions_are_drawn_as_often_as_asked_for():
    cases = one_small_among_large()
    training = TrainingConfig(patch_size=(1, 10, 10), oversampling=OversamplingConfig(times=3, threshold=50.0))
    times = small_lesion_tickets(training, CONTRACT, cases, 2)
    assert times is not None
    assert [times(cases[0], labels) for labels in cases[0].labels] == [3] + [1] * 9
    # 12 tickets are one round of the deck without foreground preference
    drawn = PatchSampler(cases, 2, (1, 10, 10), 0.0, times).batches(1, 12, generator())
    seen = Counter(round(float(image[0, 0, 0]) * 16) for image in next(drawn).images)
    assert seen == {0: 3, **dict.fromkeys(range(1, 10), 1)}
    # of those with foreground: 3 + 1 + 1 + 1 tickets
    drawn = PatchSampler(cases, 2, (1, 10, 10), 1.0, times).batches(1, 6, generator())
    seen = Counter(round(float(image[0, 0, 0]) * 16) for image in next(drawn).images)
    assert seen == {0: 3, 1: 1, 2: 1, 3: 1}


def test_what_is_small_is_chosen_from_the_sizes_where_nothing_is_said():
    # A/a of the lesions: 100, 4, 4, 4: the smallest third begins between 4 and 100, at least at 10
    training = TrainingConfig(patch_size=(1, 10, 10), oversampling=OversamplingConfig(times=5))
    times = small_lesion_tickets(training, CONTRACT, one_small_among_large(), 2)
    assert times is not None
    case = one_small_among_large()[0]
    assert [times(case, labels) for labels in case.labels[:5]] == [5, 1, 1, 1, 1]
    assert small_lesion_tickets(TrainingConfig(), CONTRACT, one_small_among_large(), 2) is None


def test_oversampling_of_an_unknown_label_is_refused():
    training = TrainingConfig(oversampling=OversamplingConfig(labels=("nothing",)))
    with pytest.raises(BadInputError, match=r"fedgs\.label-unknown"):
        small_lesion_tickets(training, CONTRACT, one_small_among_large(), 2)
