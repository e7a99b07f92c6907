"""FedGS without a given threshold: all sites of a group come to the same, chosen from what they told."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.learning.config import FedGsConfig, TrainingConfig


@dataclass
class SizedTrainer(AddingTrainer):
    """Tells lesion sizes where the task does not say what is small; remembers what it was told.

    Attributes:
        sizes: its counts.
        told: (threshold, log base) of each round.
    """

    sizes: tuple[int, ...] = ()
    told: dict[int, tuple[float | None, float | None]] = field(default_factory=dict)

    def train_round(self, task, weights, request):
        fedgs = task.training.fedgs
        self.told[request.round_number] = (fedgs.threshold, fedgs.log_base)
        result = super().train_round(task, weights, request)
        if fedgs.threshold is None:
            result = replace(result, lesion_counts=self.sizes)
        extras = {f"fedgs/{name}": -np.ones_like(array) for name, array in weights.items() if array.dtype.kind == "f"}
        return replace(result, extras=extras)


def sized(**changes) -> Run:
    config = federation(training=TrainingConfig(fedgs=FedGsConfig()), aggregation={"rule": "fedgs"}, **changes)
    # six larger lesions at one site, three smaller ones at the other: see test_lesion_sizes.py
    trainers = {"a": SizedTrainer(sizes=(0, 0, 0, 0, 6)), "b": SizedTrainer(sizes=(0, 0, 0, 0, 0, 0, 0, 3))}
    return Run(changes.pop("folder", None), config, trainers)


def test_after_their_first_answer_all_sites_go_by_the_sizes_of_all(tmp_path):
    run = sized()
    run.folder = tmp_path
    late = SizedTrainer(sizes=(0, 0, 0, 0, 0, 0, 0, 9))
    run.hooks["round-closed", "CT", 1] = lambda _: run.add("late", late)
    run.loop().run()
    pooled = pytest.approx(32.0)
    for name in ("a", "b"):
        told = run.trainers[name].told
        assert told[1] == (None, None)
        assert told[2] == (pooled, pooled)
    # Whoever comes late is asked for its own sizes first, and then they count too: of 6 and 3 + 9 lesions two thirds
    # are passed after half of the second bin.
    first, *others = sorted(late.told)
    assert late.told[first] == (None, None)
    for number in others:
        assert late.told[number] == run.trainers["a"].told[number] == (pytest.approx(2**7.5), pytest.approx(2**7.5))
    assert others


def test_a_restarted_coordinator_still_knows_the_sizes(tmp_path):
    run = sized(rounds=1)
    run.folder = tmp_path
    run.loop().run()
    again = sized(rounds=2)
    again.folder = tmp_path
    again.loop().run()
    assert again.trainers["a"].told == {2: (pytest.approx(32.0), pytest.approx(32.0))}


def test_more_lesions_than_images_are_refused_by_name(tmp_path):
    run = sized()
    run.folder = tmp_path
    run.trainers["b"].sizes = (0, 0, 11)
    run.loop().run()
    assert {event.code for event in run.kinds("site-failed")} == {"reply.lesion-sizes"}
    assert run.trainers["a"].told[2] == (pytest.approx(2 ** (4 + 2 / 3)),) * 2
