"""What lies in a runtime's folder, and which of it is in use."""

from __future__ import annotations

import compileall
import hashlib
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from FedSegCore.runtime.in_use import IN_USE, is_held

CURRENT = "current.json"
"""Names the folders in use; written last and whole, so a half-made runtime is never in use."""

LOG = "install.log"
_LOCK = "install.lock"
_NAME = re.compile(r"(packages|core|temporary)-[1-9][0-9]*")
_MARK = "made-by-fedsegslicer"
"""Lies in every folder that an installation made: only those are ever deleted."""
_SHIPPED = ("pyproject.toml", "constraints.txt")


class InstallError(Exception):
    """An installation cannot go on.

    Args:
        code: stable; the module says in words what it means and what to do.
        detail: the last thing that was said about it, for the log.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Current:
    """The runtime in use.

    Attributes:
        version: of FedSegCore.
        core_sha256: of FedSegCore's files, see ``core_fingerprint``.
        wanted_sha256: of what the packages were made from, see ``wanted_fingerprint``.
        core, packages: names of their folders.
        python: ``"3.12"``.
        torch: version with build, ``"2.13.0+cpu"``; empty if there is none.
        devices: what it can compute on.
    """

    version: str
    core_sha256: str
    wanted_sha256: str
    core: str
    packages: str
    python: str
    torch: str = ""
    devices: tuple[str, ...] = ()


def this_python() -> str:
    """Return the version that packages with compiled code are made for."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def read_current(folder: Path) -> Current | None:
    """Return the runtime in use in ``folder``; None if there is none, or one that is not whole."""
    try:
        values = json.loads((folder / CURRENT).read_text(encoding="utf-8"))
        current = Current(**{**values, "devices": tuple(values["devices"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    start = folder / current.core / "FedSegCore" / "runtime" / "start.py"
    return current if start.is_file() and (folder / current.packages).is_dir() else None


def write_current(folder: Path, current: Current) -> None:
    """Put another runtime to use, in one step."""
    part = folder / f"{CURRENT}.part"
    part.write_text(json.dumps(asdict(current), indent=1), encoding="utf-8")
    part.replace(folder / CURRENT)


def new_folder(folder: Path, kind: str) -> Path:
    """Make and return a folder that nothing has used yet (``kind``: packages, core or temporary)."""
    number = 1
    while True:
        made = folder / f"{kind}-{number}"
        try:
            made.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            (made / _MARK).touch()
            (made / IN_USE).touch()
            return made


def folders_of(folder: Path) -> list[Path]:
    """Return what installations have made in ``folder``, and nothing that only has such a name."""
    named = _names_in_use(folder)
    return [
        path
        for path in folder.glob("*-*")
        if _NAME.fullmatch(path.name)
        and path.is_dir()
        and not path.is_symlink()
        # Earlier versions made no mark, but the file that says that it is in use.
        and (path.name in named or (path / _MARK).is_file() or (path / IN_USE).is_file())
    ]


def _names_in_use(folder: Path) -> set[str]:
    """Return the names of the folders of the runtime in use, whole or not."""
    try:
        values = json.loads((folder / CURRENT).read_text(encoding="utf-8"))
        return {str(values["core"]), str(values["packages"])}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def is_in_use(folder: Path, patience_s: float = 0.0) -> bool:
    """Return whether a process runs from the runtime in ``folder``, and goes on doing so for ``patience_s``."""
    return any(is_held(path, patience_s) for path in folders_of(folder))


def remove_unused(
    folder: Path, *, everything: bool = False, told: Callable[[float], None] = lambda _fraction: None
) -> bool:
    """Delete the folders that are no longer current (``everything``: those that are, too); return whether all could be.

    What a process runs from stays until the next time. ``told`` is called with how much of it is done, 0 to 1.
    """
    current = None if everything else read_current(folder)
    kept = {current.core, current.packages} if current else set()
    unused = [path for path in folders_of(folder) if path.name not in kept]
    if everything:
        for name in (CURRENT, f"{CURRENT}.part"):
            (folder / name).unlink(missing_ok=True)
    parts = [part for path in unused if not is_held(path) for part in [*_but_marks(path), path]]
    for number, part in enumerate(parts):
        told(number / len(parts))
        shutil.rmtree(part, ignore_errors=True)  # what another program has open stays, too
    return not any(path.exists() for path in unused)


def _but_marks(folder: Path) -> list[Path]:
    """Return what is in ``folder`` but what tells that it is ours: that goes last, so that nothing stays for ever."""
    return [path for path in folder.iterdir() if path.name not in (_MARK, IN_USE)]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for one installation; the system lets go of it when the process ends, however it ends.

    Raises:
        InstallError: ``runtime.busy``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+b") as file:
        try:
            _lock(file)
        except OSError as error:
            raise InstallError("runtime.busy", str(error)) from error
        yield


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def core_files(root: Path) -> list[Path]:
    """Return FedSegCore's files in ``root``, sorted, without what Python compiled."""
    return sorted(
        path for path in (root / "FedSegCore").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def core_fingerprint(root: Path) -> str:
    """Return the SHA-256 of FedSegCore's files and their names in ``root``."""
    total = hashlib.sha256()
    for path in core_files(root):
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def copy_core(root: Path, target: Path) -> None:
    """Copy FedSegCore and what its packages are made from, and compile it."""
    for path in core_files(root):
        copied = target / path.relative_to(root)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    for name in _SHIPPED:
        shutil.copyfile(root / name, target / name)
    compileall.compile_dir(target, quiet=2)


def core_version(root: Path) -> str:
    """Return the version of the FedSegCore in ``root`` without importing it."""
    for line in (root / "FedSegCore" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise InstallError("runtime.source", "FedSegCore has no version")


def requirements_of(root: Path) -> list[str]:
    """Return the packages that FedSegCore needs."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def wanted_fingerprint(root: Path, build: str, requirements: list[str]) -> str:
    """Return what tells whether installed packages would do: pins, requirements, build of PyTorch and Python."""
    parts = [(root / "constraints.txt").read_bytes(), "\n".join(requirements).encode(), build.encode()]
    return hashlib.sha256(b"\0".join([*parts, this_python().encode(), sys.platform.encode()])).hexdigest()
