"""A tiny federation of real processes on loopback, shared by the tests of this folder."""

import time
from collections.abc import Callable, Iterator

import pytest
from tiny_deployment import write_cohort

from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.loopback import LoopbackFederation, SiteSpec


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    """Coordinator and two connected sites, ``a`` and ``b``, as real processes."""
    root = tmp_path_factory.mktemp("deployment")
    sites = [SiteSpec(name, "CT", write_cohort(root / f"images-{name}", seed)) for seed, name in enumerate("ab")]
    with LoopbackFederation(root / "federation", "tiny", sites, threads=1, device="cpu") as running:
        running.start(Progress())
        yield running


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Return ``wait(condition, limit_s, federation=None)``, which keeps the federation's processes alive meanwhile."""

    def wait(condition: Callable[[], bool], limit_s: float, running: LoopbackFederation | None = None) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            if running is not None:
                running.tick()
            time.sleep(0.05)

    return wait
