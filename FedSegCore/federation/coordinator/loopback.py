"""A whole federation on one machine: real SuperLink and SuperNodes on loopback, TLS, admitted keys, a database."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.follow import follow_run, write_run
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.coordinator.service import CoordinatorProcesses
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.process_group import free_ports, stop_trees
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.policy import SitePolicy, WorkBudget
from FedSegCore.federation.site.status import ProcessesState

_CONNECT_LIMIT_S = 120.0
_TICK_S = 0.2
_SITE_POLL_S = 1.0
_RUN = "run"

LOOPBACK_POLICY = SitePolicy(
    privacy=SitePolicy().privacy.model_copy(update={"minimum_cases": 1}),
    budget=WorkBudget(hours_per_day=24.0, hours_per_week=168.0),
)
"""A new site's policy without a minimum number of cases, and with all hours: who starts it owns the computer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteSpec:
    """One site of a federation on loopback.

    Attributes:
        name: the site's name.
        cohort_file: its cohort file; see ``site.cohort_file``.
    """

    name: str
    cohort_file: Path


class LoopbackFederation:
    """Coordinator and sites as real processes; a context manager that leaves none behind.

    Args:
        folder: where all roles get their folders: ``coordinator`` and ``sites/<name>``; must not hold any yet.
        name: the federation's name.
        sites: the sites.
        threads: CPU threads of each trainer; None shares this machine's cores between the sites.
        device: where trainers compute.
        round_limit_s: a round of training that takes longer is given up by the site.
        policy: of all sites; by default a new site's, but for cohorts of any size: nothing leaves this machine.
        address: this machine's own at which sites find the coordinator.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        sites: Sequence[SiteSpec],
        *,
        threads: int | None = None,
        device: str = "auto",
        round_limit_s: float = 3600.0,
        policy: SitePolicy = LOOPBACK_POLICY,
        address: str = "127.0.0.1",
    ) -> None:
        fleet, control = free_ports(2)
        private_folder(folder)
        private_folder(folder / "sites")
        settings = CoordinatorSettings(
            federation=name, hosts=("localhost", address), fleet_host=address, fleet_port=fleet, control_port=control
        )
        self.coordinator = CoordinatorFolder.create(folder / "coordinator", settings)
        self.coordinator_processes = CoordinatorProcesses(self.coordinator)
        self.sites: dict[str, SiteProcesses] = {}
        self.site_folders: dict[str, SiteFolder] = {}
        share = threads or max(1, (os.cpu_count() or 1) // len(sites))
        for site in sites:
            self.site_folders[site.name] = SiteFolder.create(
                folder / "sites" / site.name,
                SiteSettings.model_validate(
                    {
                        "name": site.name,
                        "coordinator": f"{address}:{fleet}",
                        "cohort": site.cohort_file.absolute(),
                        "device": device,
                        "threads": share,
                        "round_limit_s": round_limit_s,
                        "poll_s": _SITE_POLL_S,
                    }
                ),
                self.coordinator.authority_certificate,
                policy,
            )
            self.sites[site.name] = SiteProcesses(self.site_folders[site.name])
        self._stack = ExitStack()
        self.control = self._stack.enter_context(ControlClient(self.coordinator))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, progress: Progress) -> None:
        """Start all processes, admit the sites and wait until they are connected.

        Raises:
            CannotDoHereError: a site cannot connect, or not within two minutes.
        """
        progress.update(0.0, "starting coordinator and sites")
        self.coordinator_processes.start()
        for site in self.sites.values():
            site.start_trainer()
        self.control.wait_until_up(progress.part(0.0, 0.3))
        for name, folder in self.site_folders.items():
            self.control.admit(name, folder.public_key)
        self._wait_until_connected(progress.part(0.3, 1.0))

    def _wait_until_connected(self, progress: Progress) -> None:
        deadline = time.monotonic() + _CONNECT_LIMIT_S
        while True:
            self.tick()
            failed = next((site.error for site in self.sites.values() if site.error is not None), None)
            if failed is not None:
                raise failed
            connected = sum(site.state is ProcessesState.CONNECTED for site in self.sites.values())
            progress.update(connected / len(self.sites), f"{connected} of {len(self.sites)} sites are connected")
            if connected == len(self.sites):
                return
            if time.monotonic() > deadline:
                raise CannotDoHereError(
                    "federation.not-connected",
                    f"Only {connected} of {len(self.sites)} sites connected in time.",
                    "Read logs/supernode.log in the sites' folders.",
                )
            time.sleep(_TICK_S)

    def tick(self) -> list[str]:
        """Keep all processes alive and return what there is to tell, in words.

        Raises:
            CannotDoHereError: the coordinator cannot be kept running.
        """
        news = [f"coordinator: {words}" for words in self.coordinator_processes.tick()]
        for name, site in self.sites.items():
            news += [f"{name}: {words}" for words in site.tick()]
        return news

    def run(self, config: FederationConfig, progress: Progress, name: str = _RUN) -> Path:
        """Run a federation to its end and return the run's folder; raises as ``follow_run`` does."""
        run_folder = write_run(self.coordinator, name, config)
        run_id = self.control.start(name)
        follow_run(self.control, run_folder, run_id, progress, self._keep_alive)
        return run_folder

    def _keep_alive(self) -> None:
        for words in self.tick():
            _log.info(words)

    def stop(self) -> None:
        """Stop every process, the sites first so that they can take their leave."""
        self._stack.close()
        stop_trees([process for site in self.sites.values() for process in site.processes()])
        self.coordinator_processes.close()


def run_on_loopback(
    config: FederationConfig, sites: Sequence[SiteSpec], folder: Path, progress: Progress
) -> FederationOutcome:
    """Train a federation with real processes on this machine and return what came of it.

    Args:
        config: the federation.
        sites: its sites.
        folder: a new or empty folder for all roles.
        progress: told of every event; cancelling stops the run and all processes.

    Raises:
        CannotDoHereError: a process cannot be started or kept running, or the run failed.
        CancelledError: cancelled; nothing is left running.
    """
    with LoopbackFederation(folder, config.name, sites) as federation:
        federation.start(progress.part(0.0, 0.1))
        run_folder = federation.run(config, progress.part(0.1, 0.98))
        progress.update(0.99, "stopping the federation's processes")
    return FederationOutcome.load(run_folder)
