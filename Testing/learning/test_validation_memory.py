"""Validation losses outlive a trainer, so that the plateau schedule goes on where it stood."""

import os
import stat

import numpy as np
import pytest
import torch
from blob_cohort import QUIET, blob_cohort, blob_task

from FedSegCore.inference.weights import weights_of
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.learning.validation_memory import ValidationMemory
from FedSegCore.networks.registry import build_network


def test_a_trainer_that_starts_anew_goes_on_at_the_rate_it_had(tmp_path):
    task = blob_task(augmentation=QUIET, schedule="fedgin_plateau", steps_per_round=1, weight_decay=0.0)
    torch.manual_seed(0)
    weights = weights_of(build_network(task.network))
    file = tmp_path / "run" / "validation.json"

    def trainer():
        return LocalTrainer(task, blob_cohort(), site="a", memory=ValidationMemory(file))

    def moved(by, number):
        made = by.train_round(weights, RoundRequest(number, 20, seed=3)).weights
        # Adam's first step is as long as its rate
        return max(float(np.abs(made[name] - weights[name]).max()) for name in weights)

    first = trainer()
    # the same model again and again: the rate is halved after the fifth round
    assert [round(moved(first, number), 5) for number in range(1, 7)] == [0.005] * 4 + [0.0025] * 2
    for number in (7, 8):
        assert moved(trainer(), number) == pytest.approx(0.0025, rel=1e-3)
    assert moved(trainer(), 9) == pytest.approx(0.00125, rel=1e-3)
    # a round that is trained once more counts once, and a training that begins anew forgets
    assert moved(trainer(), 9) == pytest.approx(0.00125, rel=1e-3)
    assert moved(trainer(), 1) == pytest.approx(0.005, rel=1e-3)
    assert moved(trainer(), 9) == pytest.approx(0.005, rel=1e-3)


def test_only_the_present_training_is_known_and_only_to_the_owner(tmp_path):
    file = tmp_path / "validation.json"
    memory = ValidationMemory(file)
    assert memory.remember("one", 1, 0.1 + 0.2) == [0.1 + 0.2]
    assert memory.remember("one", 2, None) == [0.1 + 0.2]
    assert memory.remember("one", 3, 0.5) == [0.1 + 0.2, 0.5]
    assert ValidationMemory(file).remember("one", 4, 0.25) == [0.1 + 0.2, 0.5, 0.25]
    assert ValidationMemory(file).remember("other", 5, 0.75) == [0.75]
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"training": "one"}', b'{"training": "one", "losses": {"1": "x"}}', b"\xff",
     b'{"training": "one", "losses": {"1": NaN}}', b'{"training": "one", "losses": [1]}'],
)  # fmt: skip
def test_a_damaged_file_is_as_none(tmp_path, content):
    file = tmp_path / "validation.json"
    file.write_bytes(content)
    assert ValidationMemory(file).remember("one", 2, 0.5) == [0.5]


def test_where_nothing_can_be_written_this_process_still_knows(tmp_path, caplog):
    (tmp_path / "run").write_text("a file where the folder should be")
    memory = ValidationMemory(tmp_path / "run" / "validation.json")
    memory.remember("one", 1, 0.5)
    assert memory.remember("one", 2, 0.4) == [0.5, 0.4]
    assert "could not be written" in caplog.text
