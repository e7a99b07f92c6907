"""What an installation would do: which build of PyTorch, how much to fetch, how much room it takes."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from FedSegCore.runtime.pieces import driver_cuda

# Megabytes to fetch, and on the disk when installed. "cpu" was measured (Linux x86-64, Python 3.11, November 2026, the
# pins of constraints.txt); "cuda" is an estimate from it and from PyTorch's usual wheels. Both are told as "about".
SIZES = {"cpu": (430, 1800), "cuda": (3500, 7500)}

# The CUDA builds that PyTorch is offered in, newest first, each with the CUDA version a driver must support.
# What was built with CUDA 12.6 runs with every driver for CUDA 12 (from 525.60.13 on Linux, 528.33 on Windows on), by
# NVIDIA's minor version compatibility, and with none for CUDA 11.
CUDA_BUILDS = (("cu132", (13, 2)), ("cu130", (13, 0)), ("cu126", (12, 0)))

_UNPACKED = 3.0  # wheels are zip files
_ROOM = 1.1  # beside wheels and what is unpacked from them


@dataclass(frozen=True)
class Plan:
    """What an installation would do.

    Attributes:
        build: ``cpu`` or ``cuda``.
        variants: builds to try in this order (``("cpu",)`` for the processor's; empty: the standard one).
        download_mb: to fetch; 0 from a folder of wheels.
        disk_mb: needed on the disk while installing.
        free_mb: free there now.
    """

    build: str
    variants: tuple[str, ...]
    download_mb: int
    disk_mb: int
    free_mb: int

    @property
    def fits(self) -> bool:
        """Whether there is room."""
        return self.free_mb >= self.disk_mb


def build_for_this_computer() -> str:
    """Return ``cuda`` where an NVIDIA driver is new enough, else ``cpu``; nothing computes on Apple graphics yet."""
    return "cuda" if _builds_for_driver() else "cpu"


def variants_of(build: str) -> tuple[str, ...]:
    """Return the builds of PyTorch to try before the standard one."""
    if build == "cuda":
        # Without a driver that says what it can, the build that asks for the oldest.
        return _builds_for_driver() or (CUDA_BUILDS[-1][0],)
    # Elsewhere the standard build has no CUDA in it.
    return ("cpu",) if build == "cpu" and sys.platform == "linux" else ()


def _builds_for_driver() -> tuple[str, ...]:
    """Return the CUDA builds that this computer's NVIDIA driver can run, newest first."""
    newest = driver_cuda() or (0, 0)
    return tuple(name for name, needed in CUDA_BUILDS if needed <= newest)


def make_plan(folder: Path, build: str, wheels: Path | None) -> Plan:
    """Return what installing into ``folder`` would do (``build``: ``auto`` or a name).

    Raises:
        FileNotFoundError: the drive that ``folder`` is on is not there.
    """
    chosen = build if build != "auto" else build_for_this_computer()
    download, installed = SIZES[chosen]
    if wheels is not None:
        packed = sum(path.stat().st_size for path in wheels.glob("*.whl")) / 1e6
        download, installed = 0, int(packed * _UNPACKED)
    return Plan(
        build=chosen,
        variants=() if wheels is not None else variants_of(chosen),
        download_mb=download,
        disk_mb=max(1, int((download + installed) * _ROOM)),
        free_mb=int(shutil.disk_usage(existing_part(folder)).free / 1e6),
    )


def existing_part(folder: Path) -> Path:
    """Return ``folder``, or the first of its parents that exists.

    Raises:
        FileNotFoundError: not even its drive is there.
    """
    for path in (folder, *folder.absolute().parents):
        if path.is_dir():
            return path
    raise FileNotFoundError(errno.ENOENT, "no such drive", folder.anchor)


def index_of(tool: Path, variant: str) -> str | None:
    """Return the address of PyTorch's packages of one build, as the installed ``uv`` knows it; None if it does not.

    PyTorch keeps its builds apart from the common package index, and uv knows where. It is only asked for the address:
    to install, it would have to run Slicer's Python in a way in which that does not start.
    """
    try:
        found = re.search(rb"https://[\w.-]+/whl/(?=cpu)", tool.read_bytes())
    except OSError:
        return None
    return found[0].decode() + variant if found else None
