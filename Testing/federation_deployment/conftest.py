"""A tiny federation of real processes on loopback, and a site whose trainer listens in a thread."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_cases import write_given
from tiny_deployment import serving, tiny_policy, write_cohort

from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.loopback import LoopbackFederation, SiteSpec
from FedSegCore.federation.site.cohort_store import CohortStore
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.phantoms.torso import TORSO_CONTRACT


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    """Coordinator and two connected sites, ``a`` and ``b``, as real processes; a file has its own and may stop it."""
    root = tmp_path_factory.mktemp("deployment")
    sites = [SiteSpec(name, write_cohort(root / f"images-{name}", seed)) for seed, name in enumerate("ab")]
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
            time.sleep(0.2)  # asking SuperLink takes it some 25 ms

    return wait


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    settings = CoordinatorSettings(federation="tiny", hosts=("hospital.example", "192.0.2.7", "2001:db8::7"))
    return CoordinatorFolder.create(tmp_path / "coordinator", settings)


@pytest.fixture
def site(tmp_path: Path, coordinator: CoordinatorFolder) -> SiteFolder:
    cohort = write_cohort(tmp_path / "images", seed=1)
    settings = SiteSettings(name="a", coordinator="127.0.0.1:9443", cohort=cohort, device="cpu", round_limit_s=60.0)
    return SiteFolder.create(tmp_path / "site", settings, coordinator.authority_certificate, tiny_policy())


@pytest.fixture
def served(site: SiteFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SiteFolder, bytes]]:
    """Return the site and the key of its trainer, which listens in a thread of this process."""
    with serving(site, tmp_path_factory.mktemp("s")) as key:
        yield site, key


@pytest.fixture
def empty_site(tmp_path: Path) -> SiteFolder:
    """Return a site that keeps its cases in its own store, which is empty."""
    (tmp_path / "ca.crt").write_text("certificate")
    settings = SiteSettings(name="north", coordinator="127.0.0.1:9443", device="cpu")
    return SiteFolder.create(tmp_path / "site", settings, tmp_path / "ca.crt")


@pytest.fixture
def store(empty_site: SiteFolder) -> CohortStore:
    """Return the store of ``empty_site``."""
    return CohortStore(empty_site, TORSO_CONTRACT)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Return a folder with what a site's people have of one patient."""
    write_given(tmp_path / "given")
    return tmp_path / "given"
