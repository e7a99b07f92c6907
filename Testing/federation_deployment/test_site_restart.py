"""A site's processes over restarts: what training goes on from, and what they say where the trainer cannot start."""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gated_site import train
from tiny_deployment import serving, tiny_federation

from FedSegCore.federation.compression import lowered, raised
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.process_group import Child, Restarts
from FedSegCore.federation.site import control
from FedSegCore.federation.site.children import site_child
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.state import site_state
from FedSegCore.federation.site.status import ProcessesState
from FedSegCore.federation.site.trainer_keeper import TrainerKeeper
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


def test_a_site_whose_graphics_card_is_missing_says_so_and_stays(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
):
    """The real trainer, on a computer on which no graphics card can be seen."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    control.change(site, device="cuda")
    processes = SiteProcesses(site)
    processes._next_start = math.inf  # there is no coordinator to connect to

    def shows(code: str) -> bool:
        told.extend(processes.tick())
        return site_state(site).code == code

    told: list[str] = []
    processes.start_trainer()
    try:
        wait_until(lambda: shows("device.unavailable"), 90.0)
        assert "Choose device auto or cpu" in site_state(site).remedy
        first = processes.trainer_pid
        until = time.monotonic() + 1.0
        wait_until(lambda: shows("device.unavailable") and time.monotonic() > until, 5.0)
        assert processes.trainer_pid == first
        processes._trainer._try_again = 0.0  # the pause is over
        assert shows("device.unavailable")
        assert processes.trainer_pid != first
        control.change(site, device="cpu")
        assert shows("")
        assert processes.state is ProcessesState.STARTING
    finally:
        processes.close()
    assert told == [
        "the trainer cannot work: No CUDA graphics card can be used here.",
        "the trainer is started again with the new settings",
    ]


def test_a_trainer_that_is_given_up_has_said_why(site: SiteFolder, wait_until: Callable[..., None]):
    site.training.write_text("a file where a folder belongs")
    keeper = TrainerKeeper(site)
    keeper._starts = Restarts(most=1)
    keeper.start()
    try:
        wait_until(lambda: keeper.keep(idle=True) == ["the trainer cannot be kept running"], 90.0)
        assert keeper.given_up is not None
        assert keeper.given_up.code == "folder.not-private"
    finally:
        if keeper.process is not None:
            keeper.process.kill()
            keeper.process.wait()


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_trainer_that_finds_no_room_is_started_again_when_there_may_be_some(
    site: SiteFolder, wait_until: Callable[..., None]
):
    """Its disk was full in the evening when its hours began: the site had ended for good."""
    import resource

    keeper = TrainerKeeper(site)
    keeper._starts = Restarts(most=1)
    keeper.start()
    assert keeper.process is not None
    resource.prlimit(keeper.process.pid, resource.RLIMIT_FSIZE, (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    told: list[str] = []

    def without_room() -> bool:
        told.extend(keeper.keep(idle=True))
        return bool(told)

    try:
        wait_until(without_room, 90.0)
        assert told == [
            "the trainer cannot work: This computer cannot start what the site needs (no room on its disk)."
        ]
        assert keeper.given_up is None
        assert keeper.keep(idle=True) == []
        keeper._try_again = 0.0  # the pause is over, and there is room
        keeper.keep(idle=True)
        wait_until(lambda: not keeper.keep(idle=True) and keeper.trouble is None, 90.0)
        assert keeper.process.poll() is None
    finally:
        keeper.process.kill()
        keeper.process.wait()


class Ended:
    """A SuperNode that has just ended."""

    def poll(self) -> int:
        return 1


def test_a_site_that_waits_for_days_to_be_let_in_tries_less_often(site: SiteFolder, monkeypatch: pytest.MonkeyPatch):
    """Each start of a SuperNode costs two seconds of a core: a fifth of one, over a weekend."""
    now = [1000.0]
    monkeypatch.setattr("FedSegCore.federation.site.node.time.monotonic", lambda: now[0])
    processes = SiteProcesses(site)
    pauses = []
    for _ in range(20):
        processes._supernode = Ended()
        processes._keep_supernode()
        pauses.append(processes._next_start - now[0])
        now[0] += 10.0
    assert pauses == [5.0] * 15 + [30.0] * 5
    processes._note_connection(["connected to the federation"])
    processes._supernode = Ended()
    processes._keep_supernode()
    assert processes._next_start - now[0] == 5.0


def test_the_trainer_alone_gets_large_pages(site, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    started = []
    monkeypatch.setattr(Child, "start", lambda child: started.append(child))
    TrainerKeeper(site).start()
    (trainer,) = started
    assert trainer.environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert "GLIBC_TUNABLES" not in site_child(site, "SuperNode", "run_supernode").environment
