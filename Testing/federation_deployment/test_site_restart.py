"""A site's processes over restarts: what training goes on from."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gated_site import train
from tiny_deployment import serving, tiny_federation

from FedSegCore.federation.compression import lowered, raised
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.site import control
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.exchange import ExchangeConfig


@contextmanager
def started(site: SiteFolder, place: Path) -> Iterator[None]:
    """Start the site's processes, paused so that they start no trainer, and a new trainer in this process."""
    control.pause(site)
    processes = SiteProcesses(site)
    processes.start_trainer()
    control.resume(site)
    try:
        with serving(site, place):
            yield
    finally:
        processes.close()


@pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")
def test_a_restarted_site_goes_on_with_its_schedule_and_with_what_was_held_back(
    site: SiteFolder, tmp_path_factory: pytest.TempPathFactory
):
    config = tiny_federation(
        exchange=ExchangeConfig(precision="int8"),
        training={**tiny_federation().training.model_dump(), "schedule": "fedgin_plateau"},
    )
    task = training_task(config, "CT")
    model = lowered(initial_model(task.network, 3), config.exchange)
    for number in (1, 2):
        asked = RoundOrder(group="CT", round_number=number, rounds=2, seed=3, task=task, exchange=config.exchange)
        with started(site, tmp_path_factory.mktemp("s")):
            read_result(train(site, write_order(asked, to_record(model))), raised(model))
    kept = site.path / "training"
    assert list(json.loads((kept / "validation.json").read_text())["losses"]) == ["1", "2"]
    assert sorted(path.stem for path in (kept / "remainder").iterdir()) == ["000001", "000002"]
    assert kept.stat().st_mode & 0o077 == 0
