"""Has pip put packages into a new folder, and tells how far it is."""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from FedSegCore.runtime.layout import InstallError, new_folder
from FedSegCore.runtime.pieces import pinned, pip_environment, script_in
from FedSegCore.runtime.plan import index_of
from FedSegCore.runtime.problems import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from FedSegCore.runtime.installer import Installer
    from FedSegCore.runtime.plan import Plan

_SIZE = re.compile(r"(?:Downloading|Using cached) .*\(([\d.]+) (kB|MB|GB|bytes)")
_MEGABYTES = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
_RAW = re.compile(r"Progress (\d+) of (\d+)$")
_UNPACKING = 0.7
_UNPACKED = 0.93
_TAIL = 60


def _silent(line: str) -> bool:
    """Tell no progress; leave out the numbers."""
    return _RAW.match(line) is not None


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version("pip").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return (0,)


class Fetching:
    """One installation of packages.

    Args:
        installer: whose order it is.
        plan: what is expected.
        target: the new folder to fill.
    """

    def __init__(self, installer: Installer, plan: Plan, target: Path) -> None:
        self._order = installer.order
        self._source = installer.source
        self._wheels = installer.wheels
        self._reporter = installer.reporter
        self._children = installer.children
        self._plan = plan
        self._target = target
        self._temporary = new_folder(installer.folder, "temporary")
        self._fetched = self._begun = 0.0
        self._count = 0

    def fetch(self, requirements: list[str]) -> None:
        """Fill the target.

        Raises:
            InstallError: with the code of what pip said.
            NotWantedError: at the user's wish.
        """
        self._reporter.stage("looking for packages", 0.0)
        extra = self._torch_arguments(requirements)
        status, tail = self._pip([*self._arguments(self._target), *extra, *requirements], self._progress)
        if status:
            raise InstallError(code_of(tail), next((t for t in reversed(tail) if t.startswith("ERROR")), ""))
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _arguments(self, target: Path) -> list[str]:
        given = ["install", "--target", str(target), "--only-binary", ":all:", "--no-cache-dir",
                 "--no-warn-script-location", "-c", str(self._source / "constraints.txt")]  # fmt: skip
        if self._wheels is not None:
            given += ["--no-index", "--find-links", str(self._wheels)]
        return given

    def _torch_arguments(self, requirements: list[str]) -> list[str]:
        """Return what makes pip take this computer's build of PyTorch; nothing where the standard one is it.

        Raises:
            InstallError: the build for the processor cannot be had; the standard one is many times what was told.
        """
        wants_torch = any(re.match(r"torch\b", requirement) for requirement in requirements)
        if not self._plan.variants or not wants_torch:
            return []
        tools = new_folder(self._target.parent, "temporary")
        status, tail = self._pip([*self._arguments(tools), "--no-deps", pinned(self._source, "uv")])
        for variant in self._plan.variants if not status else ():
            index = index_of(script_in(tools, "uv"), variant)
            build = f"{pinned(self._source, 'torch')}+{variant}"
            # Only torch comes from there: with two indexes, either could offer a package of any name.
            if index is not None and self._download(build, index, tools):
                return ["--find-links", str(tools), build]
        if self._plan.build == "cpu":
            raise InstallError(code_of(tail) if status else "runtime.standard-build", "PyTorch's index is not reached")
        self._reporter.line("PyTorch's own package index cannot be reached; taking the standard build.")
        return []

    def _download(self, build: str, index: str, tools: Path) -> bool:
        query = ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "1"]
        status, _tail = self._pip([*query, "--dest", str(tools), "--index-url", index, build], self._progress)
        return status == 0

    def _pip(self, arguments: list[str], progress: Callable[[str], bool] = _silent) -> tuple[int, list[str]]:
        """Run pip in a child that ends with this process; return its status and what it said last."""
        attended = Path(__file__).with_name("attended.py")
        command = [sys.executable, str(attended), "pip", *arguments]
        tail: list[str] = []
        for line in self._children.lines(command, self._environment()):
            if not progress(line) and line:
                tail = [*tail[-_TAIL:], line]
                self._reporter.line(line)
        return self._children.returncode, tail

    def _environment(self) -> dict[str, str]:
        environment = pip_environment(os.environ)
        if _pip_version() >= (24, 1):
            environment["PIP_PROGRESS_BAR"] = "raw"  # numbers, a line each
        # pip unpacks into the temporary folder and moves from there: on the same disk, which has the room.
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._temporary))
        if self._order.proxy:
            environment |= dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), self._order.proxy)
        if self._order.ca:
            environment |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), self._order.ca)
        return environment

    def _progress(self, line: str) -> bool:
        """Tell how far it is by what pip says; return whether the line says nothing else."""
        raw, size = _RAW.match(line), _SIZE.search(line)
        if raw:
            self._tell(self._fetched + int(raw[1]) / 1e6)
            return True
        if size:
            self._fetched += self._begun
            self._begun = float(size[1]) * _MEGABYTES[size[2]]
            self._tell(self._fetched)
        elif line.startswith("Processing ") and self._wheels is not None:
            self._count += 1
            self._reporter.stage("reading wheels", _UNPACKING * self._count / len(list(self._wheels.glob("*.whl"))))
        elif line.startswith("Installing collected packages"):
            self._reporter.stage("unpacking", _UNPACKING)
        elif line.startswith("Successfully installed"):
            self._reporter.stage("unpacking", _UNPACKED)
        return False

    def _tell(self, megabytes: float) -> None:
        self._reporter.stage("downloading", _UNPACKING * min(1.0, megabytes / max(1.0, self._plan.download_mb)))
