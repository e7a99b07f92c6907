"""Which Python runs the worker, and with which environment."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .Errors import UserError

VARIABLE = "FEDSEG_RUNTIME"
"""Environment variable with the runtime's folder."""

# What Slicer sets for its own Python and libraries; a child that is another Python must not get it.
SLICER_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class RuntimeLocator:
    """Finds the Python of FedSegSlicer's private runtime.

    Args:
        chosenPath: returns what the user chose (a Python, or a runtime's folder), ``""`` for nothing.
        startupEnvironment: returns the environment Slicer was started with.
    """

    def __init__(self, chosenPath: Callable[[], str], startupEnvironment: Callable[[], dict[str, str]]) -> None:
        self._chosenPath = chosenPath
        self._startupEnvironment = startupEnvironment

    def python(self) -> Path:
        """Return the Python to run the worker with.

        Raises:
            UserError: ``runtime.missing``, or ``runtime.unusable`` if the one that was chosen is not there.
        """
        from slicer.i18n import tr as _

        chosen = self._chosenPath()
        if chosen:
            python = pythonIn(Path(chosen))
            if python is None:
                raise UserError(
                    "runtime.unusable",
                    _("The chosen runtime has no Python in it."),
                    _("Choose the runtime's folder, or its Python, under Settings."),
                )
            return python
        for folder in self._usualPlaces():
            python = pythonIn(folder)
            if python is not None:
                return python
        raise UserError(
            "runtime.missing",
            _("FedSegSlicer's runtime is not installed, or not where it is looked for."),
            _("Install it as the README says, then choose its folder under Settings."),
        )

    def arguments(self) -> list[str]:
        """Return the command that starts the worker; raises as ``python`` does."""
        return [str(self.python()), "-m", "FedSegCore.worker"]

    def environment(self) -> dict[str, str]:
        """Return the startup environment without what belongs to Slicer's own Python."""
        environment = {
            name: value for name, value in self._startupEnvironment().items() if name not in SLICER_VARIABLES
        }
        environment["FLWR_TELEMETRY_ENABLED"] = "0"
        environment["PYTHONUTF8"] = "1"
        return environment

    def _usualPlaces(self) -> Iterator[Path]:
        if os.environ.get(VARIABLE):
            yield Path(os.environ[VARIABLE])
        yield Path(__file__).resolve().parents[2] / ".runtime"  # a checkout, with the runtime of its bootstrap script
        yield Path.home() / ".fedseg" / "runtime"


def pythonIn(path: Path) -> Path | None:
    """Return the Python that ``path`` is, or that the environment in folder ``path`` has; None if there is none."""
    if path.is_file():
        return path
    python = path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.is_file() else None
