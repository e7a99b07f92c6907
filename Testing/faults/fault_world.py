"""A tiny federation of real processes that faults can reach: every process, the network between them, every file."""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parent.parent / "federation_deployment"))

from fault_networks import Networks
from fault_proxy import Line
from tiny_deployment import write_cohort

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.files import write_json
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.loopback import LoopbackFederation, SiteSpec
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.node import SiteProcesses
from FedSegCore.federation.site.status import ProcessesState

_TICK_S = 0.5


class World:
    """Coordinator and sites as real processes, the sites behind a network that can be cut; a context manager.

    Args:
        folder: for everything; must not exist.
        sites: how many sites.
        own_networks: every site in a network namespace of its own, else behind one proxy.

    Attributes:
        network: what can be cut.
    """

    def __init__(self, folder: Path, sites: int, own_networks: bool) -> None:
        names = "abcdef"[:sites]
        specs = [SiteSpec(name, write_cohort(folder / f"images-{name}", n)) for n, name in enumerate(names)]
        networks = Networks(names) if own_networks else None
        self.federation = LoopbackFederation(
            folder / "federation",
            "faults",
            specs,
            threads=1,
            device="cpu",
            round_limit_s=60.0,
            address=networks.address if networks else "127.0.0.1",
        )
        self.network: Networks | Line = networks or self._behind_a_line()
        if networks:
            for name, site in self.federation.site_folders.items():
                (site.flower_home / "network").write_text(networks.namespace(name))
        self.trouble: list[str] = []
        self.news: list[str] = []
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._kills: dict[str, list[float]] = {}

    def __enter__(self) -> "World":
        self.federation.start(Progress())
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join(10.0)
        self.network.close()
        self.federation.stop()

    def _behind_a_line(self) -> Line:
        line = Line(self.federation.coordinator.settings().fleet_port)
        for site in self.federation.site_folders.values():
            settings = site.settings().model_copy(update={"coordinator": f"127.0.0.1:{line.port}"})
            write_json(site.settings_file, settings.model_dump(mode="json"), private=True)
        return line

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            try:
                self.news += self.federation.tick()
            except FedSegError as error:
                self.trouble.append(str(error))
                return

    @property
    def folders(self) -> dict[str, SiteFolder]:
        """Site name → its folder."""
        return self.federation.site_folders

    def site(self, name: str) -> SiteProcesses:
        """Return a site's processes."""
        return self.federation.sites[name]

    def ended_sites(self) -> dict[str, str]:
        """Return site → code of those that have given up."""
        return {
            name: site.error.code if site.error else ""
            for name, site in self.federation.sites.items()
            if site.state is ProcessesState.ENDED
        }

    def coordinator_process(self, name: str) -> psutil.Process:
        """Return ``"superlink"`` or ``"superexec"``."""
        return psutil.Process(self.federation.coordinator_processes.pid(name))

    def server_app(self, run: Path) -> psutil.Process | None:
        """Return the process that drives the run in this folder: the one that holds its lock."""
        lock = str(run / "state" / "lock")
        return next((app for app, held in self._server_apps() if lock in held), None)

    def starts_a_server_app(self) -> bool:
        """Return whether a server app is on its way to a run here: it drives none yet."""
        return any(not held for _, held in self._server_apps())

    def _server_apps(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        """Yield the server apps here with the locks of runs that they hold."""
        for process in self._family("run_serverapp", str(self.federation.coordinator.path)):
            with suppress(psutil.Error):
                yield process, [file.path for file in process.open_files() if file.path.endswith("/state/lock")]

    def client_apps(self, site: str) -> list[psutil.Process]:
        """Return the processes that answer a message at a site just now."""
        return self._family("run_clientapp", str(self.folders[site].path))

    def site_processes(self, site: str) -> list[psutil.Process]:
        """Return all processes of a site."""
        return self._family(str(self.folders[site].path))

    @staticmethod
    def _family(*words: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                line = " ".join(process.cmdline())
                if all(word in line for word in words) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def may_kill(self, name: str) -> bool:
        """Return whether ``name`` may be killed: those who look after it give up after five short lives in a row."""
        recent = [moment for moment in self._kills.get(name, []) if time.monotonic() - moment < 150.0]
        if len(recent) >= 3:
            return False
        self._kills[name] = [*recent, time.monotonic()]
        return True


def full_disk(process: psutil.Process, limit: int = 64) -> Callable[[], None]:
    """Let ``process`` write no file beyond ``limit`` bytes, as a full disk would; returns what ends it.

    Linux's RLIMIT_FSIZE stands for the disk: Python ignores its signal, so that every write fails with an OSError.
    """
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))

    def undo() -> None:
        if process.is_running():
            # not what was found: another fault's full disk may have been there already
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    return undo


@contextmanager
def children_with_a_hook() -> Iterator[None]:
    """Start processes so that clock and network can be put wrong (``child_hook/sitecustomize.py``)."""
    before = dict(os.environ)
    hook = str(Path(__file__).parent / "child_hook")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (hook, before.get("PYTHONPATH"))))
    os.environ["FEDSEG_FAULTS"] = "1"
    try:
        yield
    finally:
        for name in ("PYTHONPATH", "FEDSEG_FAULTS"):
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]
