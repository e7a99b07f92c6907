"""What every way of making a runtime needs: environment, graphics card, pins. Readable by an old Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What belongs to another Python, and what would send packages elsewhere.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON")
NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""``creationflags`` that keep a child from opening a console window on Windows."""

_QUICK_SECONDS = 20
_CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)")


def without_foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without another Python's settings, for a child that is a Python of its own."""
    return {name: value for name, value in environment.items() if name not in FOREIGN}


def pip_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for pip: nobody is asked, nothing goes anywhere but where we say."""
    kept = {name: value for name, value in environment.items() if name not in _ELSEWHERE}
    return {
        **kept,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # pip itself belongs to the Python that must stay as it is
    }


def driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA version the NVIDIA driver can run; None where no driver answers."""
    found = _CUDA.search(_ask_driver() or "")
    return (int(found[1]), int(found[2])) if found else None


def _ask_driver() -> str | None:
    """Return what ``nvidia-smi`` says; None where there is none, or no answer in time."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool], capture_output=True, text=True, timeout=_QUICK_SECONDS, creationflags=NO_WINDOW)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def pinned(root: Path, name: str) -> str:
    """Return ``name==version`` as ``root``'s constraints.txt has it.

    Raises:
        LookupError: if it does not pin ``name``.
    """
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + "=="):
            return line.strip()
    raise LookupError(f"constraints.txt does not pin {name}")


def script_in(folder: Path, name: str) -> Path:
    """Return where pip puts the script ``name`` of packages installed into ``folder``."""
    return folder / "bin" / (name + ".exe" if os.name == "nt" else name)
