"""Makes, checks and removes a runtime: the child process of Slicer's Python that does the work.

The first line of standard input is the order, one JSON object (see ``Order``; there, so that no proxy's password stands
in a list of processes). ``cancel``, or the end of standard input, ends it and leaves the former runtime whole. Events
go to standard output, one JSON object a line (see ``Reporter``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from FedSegCore.runtime.plan import Plan

CHECKED = ("torch", "monai", "flwr", "SimpleITK", "safetensors", "FedSegCore.worker.methods")
"""What is imported before a runtime counts as ready."""

NO_GPU = "runtime.no-gpu"
"""Code of the note that a runtime meant for a graphics card computes on the processor."""

_TAIL = 60
_PATIENCE_S = 5.0  # for a worker that is just ending
_TELL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
torch = sys.modules.get("torch")
devices = ["cpu"]
if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available():
    devices.append(torch.cuda.get_device_name(0))
sys.stdout.write("told:" + json.dumps({"torch": getattr(torch, "__version__", ""), "devices": devices}) + "\\n")
"""


@dataclass(frozen=True)
class Order:
    """What is to be done.

    Attributes:
        action: ``look``, ``install``, ``check`` or ``remove``.
        source: folder with the FedSegCore that the extension ships.
        folder: the runtime's.
        build: ``auto``, ``cpu`` or ``cuda``.
        wheels: folder of wheels to install from without a network; empty for none.
        proxy, ca: address of a proxy, file of an organisation's own certificate authority; empty for the system's.
        fresh: fetch the packages again even if those that are there would do.
        requirements, imports: what to install and to import; empty for what FedSegCore needs.
    """

    action: str
    source: str
    folder: str
    build: str = "auto"
    wheels: str = ""
    proxy: str = ""
    ca: str = ""
    fresh: bool = False
    requirements: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)


class NotWantedError(Exception):
    """Nobody wants it any more."""


class Reporter:
    """Tells what happens: ``{"event": KIND, …}``.

    Kinds are ``looked``, ``stage``, ``line``, and for the end ``ready``, ``removed``, ``problem`` or ``cancelled``.
    """

    def __init__(self) -> None:
        self.log: Path | None = None
        self._fraction = 0.0

    def event(self, kind: str, **values: Any) -> None:
        """Tell one event."""
        sys.stdout.write(json.dumps({"event": kind, **values}) + "\n")
        sys.stdout.flush()

    def stage(self, name: str, fraction: float) -> None:
        """Tell how far it is; the fraction never goes back."""
        self._fraction = max(self._fraction, min(1.0, fraction))
        self.event("stage", stage=name, fraction=round(self._fraction, 4))

    def line(self, text: str) -> None:
        """Put a line into the log, and tell it."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        self.event("line", text=text[:300])


class Children:
    """Runs child processes one after the other, each of which ends when this process does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """End the running child; no other one is started."""
        with self._lock:
            self.cancelled = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()

    def lines(self, command: list[str], environment: dict[str, str]) -> Iterator[str]:
        """Yield what a child says; the status is in ``returncode`` afterwards.

        Raises:
            NotWantedError: if nobody wants it any more.
        """
        from FedSegCore.runtime.pieces import NO_WINDOW

        with self._lock:
            if self.cancelled:
                raise NotWantedError
            self._process = process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                creationflags=NO_WINDOW,
            )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        with process.stdout, process.stdin:
            for line in process.stdout:
                yield line.decode("utf-8", "replace").rstrip()
            self.returncode = process.wait()
        if self.cancelled:
            raise NotWantedError


class Installer:
    """Carries out one order."""

    def __init__(self, order: Order, reporter: Reporter, children: Children) -> None:
        self.order = order
        self.folder = Path(order.folder)
        self.source = Path(order.source)
        self.wheels = Path(order.wheels) if order.wheels else None
        self.reporter = reporter
        self.children = children

    def run(self) -> None:
        """Do what was ordered.

        Raises:
            InstallError: with a stable code.
            NotWantedError: at the user's wish.
        """
        {"look": self._look, "install": self._install, "check": self._check_present, "remove": self._remove}[
            self.order.action
        ]()

    def _plan(self) -> Plan:
        from FedSegCore.runtime.layout import InstallError
        from FedSegCore.runtime.plan import make_plan

        if self.wheels is not None and not any(self.wheels.glob("*.whl")):
            raise InstallError("runtime.no-wheels", "no .whl files in the folder")
        try:
            return make_plan(self.folder, self.order.build, self.wheels)
        except FileNotFoundError as error:
            raise InstallError("runtime.no-drive", str(error)) from error

    def _look(self) -> None:
        """Tell what is there and what an installation would do."""
        from dataclasses import asdict

        from FedSegCore.runtime import layout

        current = layout.read_current(self.folder)
        plan = self._plan()
        condition = "absent"
        if current is not None:
            same = current.core_sha256 == layout.core_fingerprint(self.source)
            condition = "ready" if same and current.python == layout.this_python() else "outdated"
            if not self.order.fresh and self._packages_that_do(plan) is not None:
                plan = type(plan)(**{**asdict(plan), "download_mb": 0, "disk_mb": 20})
        elif (self.folder / layout.CURRENT).is_file():
            condition = "broken"
        self.reporter.event("looked", condition=condition, present=asdict(current) if current else None,
                            plan={**asdict(plan), "fits": plan.fits})  # fmt: skip

    def _remove(self) -> None:
        from FedSegCore.runtime.layout import LOG, InstallError, is_in_use, locked, remove_unused

        with locked(self.folder):
            if is_in_use(self.folder, _PATIENCE_S):
                raise InstallError("runtime.in-use", "a process runs from it")
            told = partial(self.reporter.stage, "deleting")
            if not remove_unused(self.folder, everything=True, told=told):
                raise InstallError("runtime.in-use", "some files could not be deleted")
        (self.folder / LOG).unlink(missing_ok=True)
        (self.folder / "install.lock").unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
        self.reporter.event("removed")

    def _check_present(self) -> None:
        from FedSegCore.runtime.layout import InstallError, read_current

        current = read_current(self.folder)
        if current is None:
            raise InstallError("runtime.damaged", "the runtime is not whole")
        told = self._check(self.folder / current.core, self.folder / current.packages)
        self._tell_ready(self._plan().build, told)

    def _install(self) -> None:
        from FedSegCore.runtime import layout

        with layout.locked(self.folder):
            self._begin_log()
            layout.remove_unused(self.folder)
            plan = self._plan()
            present = None if self.order.fresh else self._packages_that_do(plan)
            if present is None and not plan.fits:
                raise layout.InstallError("runtime.disk", f"{plan.disk_mb} MB needed, {plan.free_mb} MB free")
            try:
                told = self._make(plan, present)
            finally:
                layout.remove_unused(self.folder)
        self._tell_ready(plan.build, told)

    def _make(self, plan: Plan, present: str | None) -> dict[str, Any]:
        from FedSegCore.runtime import layout
        from FedSegCore.runtime.fetching import Fetching

        requirements = self._requirements()
        core = layout.new_folder(self.folder, "core")
        if present is None:
            packages = layout.new_folder(self.folder, "packages")
            Fetching(self, plan, packages).fetch(requirements)
        else:
            packages = self.folder / present
        self.reporter.stage("copying FedSegCore", 0.94)
        layout.copy_core(self.source, core)
        self.reporter.stage("checking", 0.95)
        told = self._check(core, packages)
        if self.children.cancelled:
            raise NotWantedError
        layout.write_current(self.folder, layout.Current(
            version=layout.core_version(core), core_sha256=layout.core_fingerprint(core),
            wanted_sha256=layout.wanted_fingerprint(self.source, plan.build, requirements), core=core.name,
            packages=packages.name, python=layout.this_python(), torch=told["torch"], devices=tuple(told["devices"]),
        ))  # fmt: skip
        return told

    def _requirements(self) -> list[str]:
        from FedSegCore.runtime.layout import requirements_of

        return self.order.requirements or requirements_of(self.source)

    def _packages_that_do(self, plan: Plan) -> str | None:
        """Return the folder of packages that are there and are those that would be installed."""
        from FedSegCore.runtime.layout import read_current, wanted_fingerprint

        current = read_current(self.folder)
        wanted = wanted_fingerprint(self.source, plan.build, self._requirements())
        return current.packages if current is not None and current.wanted_sha256 == wanted else None

    def _begin_log(self) -> None:
        from FedSegCore.runtime.layout import LOG

        self.reporter.log = self.folder / LOG
        self.reporter.log.write_text("", encoding="utf-8")

    def _check(self, core: Path, packages: Path) -> dict[str, Any]:
        """Import in a child what the worker will; return the build of PyTorch and what it can compute on."""
        from FedSegCore.runtime.layout import InstallError

        start = core / "FedSegCore" / "runtime" / "start.py"
        names = self.order.imports or list(CHECKED)
        # Nothing is compiled beside the modules of the Python that must stay as it is.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        told: dict[str, Any] | None = None
        last: list[str] = []
        for line in self.children.lines([sys.executable, str(start), str(packages), "-c", _TELL, *names], environment):
            if line.startswith("told:"):
                told = json.loads(line.removeprefix("told:"))
            else:
                last = [*last[-_TAIL:], line]
                self.reporter.line(line)
        if self.children.returncode or told is None:
            raise InstallError("runtime.check-failed", last[-1] if last else "")
        return told

    def _tell_ready(self, build: str, told: dict[str, Any]) -> None:
        """Tell what is in use now, and whether PyTorch cannot use a graphics card that it was meant for."""
        from dataclasses import asdict

        from FedSegCore.runtime.layout import InstallError, read_current

        current = read_current(self.folder)
        if current is None:
            raise InstallError("runtime.damaged", "the runtime is not whole")
        self.reporter.stage("checking", 1.0)
        note = NO_GPU if build == "cuda" and told["torch"] and told["devices"] == ["cpu"] else ""
        if note:
            self.reporter.line(f"PyTorch {told['torch']} cannot use this computer's graphics card with its driver.")
        self.reporter.event("ready", present=asdict(current), **({"note": note} if note else {}))


def attend(children: Children) -> None:
    """Cancel when standard input says so or ends."""
    said = b""
    while b"cancel" not in said:
        data = os.read(0, 1024)
        if not data:
            break
        said = (said + data)[-64:]
    children.cancel()


def read_order() -> Order:
    """Return the order, the first line of standard input, read without a buffer that would swallow what follows."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            break
        line += data
    return Order(**json.loads(line))


def main() -> int:
    """Carry out the order; return the exit status."""
    from FedSegCore.runtime.layout import InstallError
    from FedSegCore.runtime.problems import code_of

    reporter, children = Reporter(), Children()
    order = read_order()
    threading.Thread(target=attend, args=(children,), daemon=True).start()
    try:
        Installer(order, reporter, children).run()
    except NotWantedError:
        reporter.event("cancelled")
        return 130
    except InstallError as problem:
        reporter.event("problem", code=problem.code, detail=problem.detail)
        return 4
    except OSError as error:
        reporter.event("problem", code=code_of([str(error)]), detail=str(error))
        return 4
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.dont_write_bytecode = True  # nothing is written beside the extension's files, nor beside Python's own
    sys.exit(main())
