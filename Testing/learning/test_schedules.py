"""Learning rates over the rounds."""

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.schedules import Moment, learning_rate, schedule_names


def rates(training, rounds, losses=()):
    return [learning_rate(training, Moment(n, rounds, losses[: n - 1])) for n in range(1, rounds + 1)]


def test_cosine_by_hand():
    training = TrainingConfig(learning_rate=1e-2, final_learning_rate=2e-3)
    assert rates(training, 5) == pytest.approx([1e-2, 6e-3 + 4e-3 * 0.5**0.5, 6e-3, 6e-3 - 4e-3 * 0.5**0.5, 2e-3])
    assert rates(training, 1) == [1e-2]
    assert learning_rate(training, Moment(9, 5)) == pytest.approx(2e-3)


def test_constant():
    assert rates(TrainingConfig(learning_rate=1e-4, schedule="constant"), 4) == [1e-4] * 4


def test_fedgins_plateau():
    """Three rounds without improvement are borne, the fourth halves the rate; it never falls below 1e-5."""
    training = TrainingConfig(learning_rate=5e-4, schedule="fedgin_plateau")
    losses = [1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7, 0.7]
    assert rates(training, 9, losses) == pytest.approx([5e-4] * 6 + [2.5e-4] * 3)
    assert learning_rate(training, Moment(61, 100, [0.5] * 60)) == pytest.approx(1e-5)


def test_unknown_schedule():
    with pytest.raises(BadInputError) as caught:
        learning_rate(TrainingConfig(schedule="poly"), Moment(1, 2))
    assert caught.value.code == "schedule.unknown"
    assert "cosine" in schedule_names()
