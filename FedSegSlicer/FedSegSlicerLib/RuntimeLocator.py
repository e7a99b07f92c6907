"""Which Python runs the worker, and with which environment."""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import VERSION
from .Errors import UserError

VARIABLE = "FEDSEG_RUNTIME"
"""Environment variable with the runtime's folder."""

# What Slicer sets for its own Python and libraries; a child that is another Python must not get it.
SLICER_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class RuntimeLocator:
    """Finds FedSegSlicer's private runtime: one that the module installed, or an environment with a Python of its own.

    Args:
        chosenPath: returns what the user chose (a Python, or a runtime's folder), ``""`` for nothing.
        startupEnvironment: returns the environment Slicer was started with.
        installFolder: returns the folder that the module installs into; None for the usual one.
    """

    def __init__(
        self,
        chosenPath: Callable[[], str],
        startupEnvironment: Callable[[], dict[str, str]],
        installFolder: Callable[[], Path] | None = None,
    ) -> None:
        self._chosenPath = chosenPath
        self._startupEnvironment = startupEnvironment
        self.installFolder = installFolder or usualInstallFolder

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs the runtime's Python with ``-m MODULE …`` or ``-c CODE …``.

        Raises:
            UserError: ``runtime.missing``, ``runtime.other-python``, or ``runtime.unusable`` if the one that was
                chosen is not there.
        """
        from slicer.i18n import tr as _

        chosen = self._chosenPath()
        if chosen:
            start = startOf(Path(chosen))
            if start is None:
                raise UserError(
                    "runtime.unusable",
                    _("The chosen runtime has no Python in it."),
                    _("Choose the runtime's folder, or its Python, under Settings."),
                )
            return [*start, *arguments]
        for folder in self._usualPlaces():
            start = startOf(folder)
            if start is not None:
                return [*start, *arguments]
        raise UserError(
            "runtime.missing",
            _("FedSegSlicer's runtime is not installed, or not where it is looked for."),
            _("Press Install at the top of the module, or choose a runtime's folder under Settings."),
        )

    def arguments(self) -> list[str]:
        """Return the command that starts the worker; raises as ``command`` does."""
        return self.command("-m", "FedSegCore.worker")

    def problem(self) -> UserError | None:
        """Return why there is no runtime to start, None if there is one of this module's version.

        Only looks at small files: nothing is started. A runtime of another kind says its version when it is greeted.
        """
        try:
            command = self.arguments()
        except UserError as error:
            return error
        folder = installedBeside(command)
        version = currentOf(folder).get("version") if folder is not None else VERSION
        return None if version == VERSION else otherVersionError(str(version))

    def installed(self) -> dict:
        """Return what the installed runtime that would be started says of itself; empty if another kind would be."""
        try:
            folder = installedBeside(self.arguments())
        except UserError:
            return {}
        return currentOf(folder) if folder is not None else {}

    def environment(self) -> dict[str, str]:
        """Return the startup environment without what belongs to Slicer's own Python."""
        environment = {
            name: value for name, value in self._startupEnvironment().items() if name not in SLICER_VARIABLES
        }
        environment["FLWR_TELEMETRY_ENABLED"] = "0"
        environment["PYTHONUTF8"] = "1"
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # Slicer's Python, which may run it, stays as it is
        if platform.libc_ver()[0] == "glibc":
            useHugePages(environment)
        return environment

    def _usualPlaces(self) -> Iterator[Path]:
        if os.environ.get(VARIABLE):
            yield Path(os.environ[VARIABLE])
        yield self.installFolder()
        yield Path(__file__).resolve().parents[2] / ".runtime"  # a checkout, with the runtime of its bootstrap script
        yield Path.home() / ".fedseg" / "runtime"


def useHugePages(environment: dict[str, str]) -> None:
    """Let a process of this environment keep large arrays in large pages, as ``FedSegCore.common.huge_pages`` says.

    Known since glibc 2.35, passed over by older ones. What the user has set of it stays.
    """
    said = environment.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in said:
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, (said, "glibc.malloc.hugetlb=1")))


def coreFingerprint(source: Path) -> str:
    """Return the SHA-256 of FedSegCore in a folder as an installation notes it (``core_sha256`` in current.json).

    Reads two megabytes: for another thread.
    """
    total, root = hashlib.sha256(), source / "FedSegCore"
    for path in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        total.update(path.relative_to(source).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def usualInstallFolder() -> Path:
    """Return where the module installs its runtime unless told otherwise (a short path, for Windows' sake)."""
    return Path.home() / ".fedseg" / "slicer"


def slicerPython() -> str:
    """Return Slicer's own Python for child processes."""
    return shutil.which("PythonSlicer") or sys.executable


def currentOf(folder: Path) -> dict:
    """Return what an installed runtime's folder says of itself; empty if none is installed there."""
    try:
        current = json.loads((folder / "current.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return current if isinstance(current, dict) else {}


def startOf(path: Path) -> list[str] | None:
    """Return the command that starts the Python of ``path``: a Python, an environment or an installed runtime.

    Raises:
        UserError: ``runtime.other-python`` if it was installed for another Python than this Slicer's.
    """
    current = currentOf(path)
    if not current:
        python = pythonIn(path)
        return [str(python)] if python is not None else None
    start = path / str(current.get("core")) / "FedSegCore" / "runtime" / "start.py"
    packages = path / str(current.get("packages"))
    if not start.is_file() or not packages.is_dir():
        return None
    if current.get("python") != f"{sys.version_info[0]}.{sys.version_info[1]}":
        raise otherPythonError(str(current.get("python")))
    return [slicerPython(), str(start), str(packages)]


def installedBeside(command: list[str]) -> Path | None:
    """Return the folder of the installed runtime that ``command`` starts, None if it starts another kind."""
    return Path(command[2]).parent if len(command) > 2 and command[1].endswith("start.py") else None


def pythonIn(path: Path) -> Path | None:
    """Return the Python that ``path`` is, or that the environment in folder ``path`` has; None if there is none."""
    if path.is_file():
        return path
    python = path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.is_file() else None


def otherPythonError(python: str) -> UserError:
    """Return the error of a runtime that another version of Slicer installed."""
    from slicer.i18n import tr as _

    return UserError(
        "runtime.other-python",
        _("The runtime was installed by a Slicer with Python {other}; this one has Python {own}.").format(
            other=python, own=f"{sys.version_info[0]}.{sys.version_info[1]}"
        ),
        _("Press Update at the top of the module; or choose another folder there, and keep one for each Slicer."),
    )


def otherVersionError(version: str) -> UserError:
    """Return the error of a runtime with another FedSegCore than this module's."""
    from slicer.i18n import tr as _

    return UserError(
        "runtime.other-version",
        _("The module is version {own}, its runtime {other}.").format(own=VERSION, other=version),
        _("Press Update at the top of the module, so that both are the same; or update the runtime you chose."),
    )


def otherCoreError() -> UserError:
    """Return the error of a runtime with another FedSegCore than this module's, though the version is the same."""
    from slicer.i18n import tr as _

    return UserError(
        "runtime.other-core",
        _("The module was updated since its runtime was installed; both are version {own}.").format(own=VERSION),
        _("Press Update at the top of the module, so that both are the same."),
    )
