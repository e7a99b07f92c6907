"""A site's own GIN settings: kept, journalled, used by its trainer where the federation lets it; damaged ones told."""

import os

import numpy as np
import pytest
from flwr.app import RecordDict
from gated_site import Served, entries, only_a_code, train
from tiny_deployment import tiny_federation

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig
from FedSegCore.cli.journal_table import journal_table
from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.site.journal_entries import GinChosen, GinUsed
from FedSegCore.federation.site.local_gin import (
    LocalGin,
    choose_local_gin,
    local_gin_file,
    read_local_gin,
    with_local_gin,
)
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.worker.methods import Methods

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")

OWN = LocalGin(alpha=(0.0, 0.25), layers=2, kernel_sizes=(1,), per_batch=True)


def order(augmentation: AugmentationConfig) -> RecordDict:
    task = training_task(tiny_federation(augmentation=augmentation), "CT")
    asked = RoundOrder(group="CT", round_number=1, rounds=2, seed=3, task=task)
    return write_order(asked, to_record(initial_model(task.network, 3)))


def trained(site, augmentation: AugmentationConfig) -> dict[str, np.ndarray]:
    _, weights, _ = read_result(train(site, order(augmentation)))
    return weights


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_the_site_trains_with_its_own_settings_where_the_federation_lets_it(served: Served) -> None:
    """What it then answers is what a federation with these very settings would have got, to the bit."""
    site, _ = served
    asked = AugmentationConfig(spatial=None, gin=GinConfig(probability=1.0))
    theirs = trained(site, asked)
    as_own = asked.model_copy(update={"gin": GinConfig(probability=1.0, **OWN.model_dump())})
    expected = trained(site, as_own)
    assert not same(theirs, expected)
    choose_local_gin(site, OWN)
    assert same(trained(site, asked), expected)
    assert same(trained(site, asked.model_copy(update={"site_gin": False})), theirs)
    choose_local_gin(site, None)
    assert same(trained(site, asked), theirs)
    told = [entry for entry in entries(site) if entry.kind.startswith("gin-")]
    chosen = GinChosen(own=True, alpha_low=0.0, alpha_high=0.25, layers=2, kernel_sizes=(1,), per_batch=True)
    used = [GinUsed(round_number=1, own=own) for own in (True, False)]
    assert told == [chosen, *used, GinChosen(own=False)]
    assert journal_table(site.journal.lines()).row_count == len(entries(site))


def test_only_gins_look_is_the_sites(served: Served) -> None:
    gin = GinConfig(probability=0.5, hidden_channels=4, ipa=True, ipa_weight=3.0)
    task = training_task(tiny_federation(augmentation=AugmentationConfig(gin=gin)), "CT")
    changed = with_local_gin(task, OWN)
    assert changed.augmentation.gin == gin.model_copy(update=OWN.model_dump())
    assert changed.augmentation.gin.probability == 0.5
    assert changed.model_copy(update={"augmentation": task.augmentation}) == task
    without = task.model_copy(update={"augmentation": AugmentationConfig(gin=None)})
    assert with_local_gin(without, OWN) is without
    assert with_local_gin(task, None) is task


def test_damaged_settings_stop_the_round_and_are_told_as_a_code(served: Served) -> None:
    site, _ = served
    assert read_local_gin(site) is None
    choose_local_gin(site, OWN)
    assert read_local_gin(site) == OWN
    assert local_gin_file(site).stat().st_mode & 0o077 == 0
    local_gin_file(site).write_text('{"alpha": [0.9, 0.1], "layers": 4, "kernel_sizes": [3], "per_batch": false}')
    with pytest.raises(BadInputError) as refused:
        read_local_gin(site)
    assert refused.value.code == "augmentation.invalid"
    assert only_a_code(train(site, order(AugmentationConfig()))) == "augmentation.invalid"


def test_the_worker_writes_what_was_looked_at(served: Served, tmp_path) -> None:
    site, _ = served
    method = Methods().find("gin.use")

    def use(folder, settings):
        from FedSegCore.common.progress import Progress

        return method.slow(method.params.model_validate({"site": str(folder), "settings": settings}), Progress())

    looked_at = {"alpha": [0.2, 0.7], "layers": 3, "kernel_sizes": [1, 3, 5], "per_batch": False}
    assert use(site.path, looked_at) == {"site": site.settings().name, "own": True}
    assert read_local_gin(site) == LocalGin.model_validate(looked_at)
    with pytest.raises(BadInputError) as refused:
        use(site.path, {**looked_at, "kernel_sizes": [2]})
    assert refused.value.code == "gin.bad-settings"
    assert read_local_gin(site) == LocalGin.model_validate(looked_at)
    assert use(site.path, None)["own"] is False
    assert read_local_gin(site) is None
    with pytest.raises(BadInputError) as refused:
        use(tmp_path, looked_at)
    assert refused.value.code == "site.folder"
    assert [entry.own for entry in entries(site) if entry.kind == "gin-chosen"] == [True, False]
