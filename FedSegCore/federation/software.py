"""Which software a site or a server runs, so that a mismatch is refused in words and not in the middle of a round."""

import functools
import hashlib
import platform
import re
from pathlib import Path

import FedSegCore
from FedSegCore.common.packages import installed_versions

PROTOCOL = 6
"""Version of the messages between server app and client app."""

_PACKAGES = ("flwr", "torch", "monai", "numpy")


def software_versions() -> dict[str, str]:
    """Return package → version of what matters to a round; packages that are absent are left out."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    own = {"FedSegCore": FedSegCore.__version__, "python": platform.python_version()}
    return {**own, **installed_versions(_PACKAGES)}


def flower_minor(versions: dict[str, str]) -> str:
    """Return Flower's major.minor (``"1.41"``), the part that must agree; empty if not given."""
    return ".".join(versions.get("flwr", "").split(".")[:2])


def is_newer(version: str, other: str) -> bool:
    """Return whether ``version`` comes after ``other`` by their numbers; what is no version has none."""
    return _numbers(version) > _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()


@functools.cache
def app_fingerprint() -> str:
    """Return the SHA-256 over the installed FedSegCore's Python files (names and contents, line ends as ``\\n``)."""
    folder = Path(FedSegCore.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
