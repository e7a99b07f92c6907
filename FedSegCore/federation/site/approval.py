"""Which app bundles' messages a site answers: what was asked for, what it holds, approving and revoking.

A bundle is never kept, unpacked or run here. Of a refused one a list is kept: names, sizes and hashes of its files, so
that the site's owner can see what the coordinator sends before saying yes. All names in it come from a stranger.
"""

import hashlib
import io
import logging
import re
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError, UsageError
from FedSegCore.common.files import write_text
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.site.folder import ApprovedBundles, SiteFolder
from FedSegCore.federation.site.journal_entries import BundleApproved

MOST_KEPT = 20
"""Lists of refused bundles that are kept; a further one is not, so that no server can fill the disk with them."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{8,64}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_MOST_BUNDLE_BYTES = 16 * 1024**2
_MOST_UNPACKED_BYTES = 32 * 1024**2
_MOST_FILES = 1000
_MOST_NAME = 200
_MOST_TOML = 64 * 1024
_CHUNK = 1024**2
_LOCK_S = 10.0
# LZMA is left out: its headers can ask for gigabytes
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_log = logging.getLogger(__name__)


class BundleFile(BaseModel):
    """One file of a bundle.

    Attributes:
        name: as it stands there, cut and with odd characters replaced; never used as a path.
        bytes: its size when unpacked, as far as it was counted.
        sha256: of its content; empty where it could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=_MOST_NAME)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

    @property
    def escapes(self) -> bool:
        """Whether unpacking it would write outside its folder."""
        parts = re.split(r"[\\/]", self.name)
        return ".." in parts or parts[0] == "" or ":" in parts[0]


class BundleList(BaseModel):
    """What a bundle holds.

    Attributes:
        sha256: of the whole bundle, which names it.
        bytes: its size.
        version: version it gives itself; empty where it gives none.
        files: its files.
        complete: False where it could not be read to its end: no zip file, too large, or made to do harm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    version: Annotated[str, Field(pattern=r"^([0-9A-Za-z][0-9A-Za-z.+-]{0,31})?$")] = ""
    files: Annotated[tuple[BundleFile, ...], Field(max_length=_MOST_FILES)] = ()
    complete: bool = True


class Changes(BaseModel):
    """How a bundle differs from the installed one, by names of files."""

    model_config = ConfigDict(frozen=True)

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def list_bundle(content: bytes) -> BundleList:
    """Return what a bundle holds, reading it in bounded memory and time and writing nothing; never raises."""
    digest, size = bundle_digest(content), len(content)
    if size > _MOST_BUNDLE_BYTES:
        return BundleList(sha256=digest, bytes=size, complete=False)
    files: list[BundleFile] = []
    version = ""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                files.append(_listed(archive, entry, _MOST_UNPACKED_BYTES - sum(file.bytes for file in files)))
                if entry.filename == "pyproject.toml" and entry.file_size <= _MOST_TOML:
                    version = _version(archive.read(entry))
                if len(files) >= _MOST_FILES:
                    raise ValueError("too many files")
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError, ValueError):
        return BundleList(sha256=digest, bytes=size, version=version, files=tuple(files), complete=False)
    return BundleList(sha256=digest, bytes=size, version=version, files=tuple(files))


def changes(installed: BundleList, asked: BundleList) -> Changes:
    """Return how ``asked`` differs from ``installed``."""
    ours = {file.name: file.sha256 for file in installed.files}
    theirs = {file.name: file.sha256 for file in asked.files}
    return Changes(
        added=tuple(sorted(theirs.keys() - ours.keys())),
        changed=tuple(sorted(name for name in theirs.keys() & ours.keys() if theirs[name] != ours[name])),
        removed=tuple(sorted(ours.keys() - theirs.keys())),
    )


def installed_bundle() -> BundleList:
    """Return what this version's own bundle holds."""
    return list_bundle(thin_bundle())


def note_refused(folder: SiteFolder, content: bytes) -> None:
    """Keep the list of a refused bundle's files for the site's owner; never raises for its content or a full disk."""
    try:
        lists = private_folder(_lists(folder))
        file = lists / f"{bundle_digest(content)}.json"
        if not file.exists() and len(list(lists.glob("*.json"))) < MOST_KEPT:
            write_text(file, list_bundle(content).model_dump_json() + "\n", private=True)
    except (OSError, FedSegError):
        _log.warning("the list of a refused bundle's files could not be kept")


def refused_bundles(folder: SiteFolder) -> list[BundleList]:
    """Return the lists of all refused bundles that are kept, the latest first."""
    files = sorted(_lists(folder).glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return list(_read_lists(files))


def asked_bundle(folder: SiteFolder, asked: str) -> BundleList:
    """Return the bundle somebody means by a file, or by the SHA-256 or its first digits (8 at least).

    Raises:
        BadInputError: ``approval.unknown``: no refused bundle begins so, and it is neither a file nor a whole SHA-256.
        UsageError: ``approval.ambiguous``.
    """
    path = Path(asked)
    if path.is_file():
        if path.stat().st_size > _MOST_BUNDLE_BYTES:
            raise BadInputError("approval.too-large", "The file is too large for an app bundle.", "Give the bundle.")
        return list_bundle(path.read_bytes())
    start = asked.lower()
    known = [
        bundle for bundle in refused_bundles(folder) if _SHORT.fullmatch(start) and bundle.sha256.startswith(start)
    ]
    if len(known) > 1:
        raise UsageError("approval.ambiguous", "Several refused bundles begin so.", "Give more digits.")
    if known:
        return known[0]
    if _DIGEST.fullmatch(start):
        return BundleList(sha256=start, bytes=0, complete=False)
    raise BadInputError(
        "approval.unknown",
        "There is no such file, and no refused bundle with this SHA-256.",
        "See the refused ones with 'fedseg site approve SITE', or give the whole SHA-256.",
    )


def approved_bundles(folder: SiteFolder) -> tuple[str, ...]:
    """Return the SHA-256 of all bundles approved beside this version's own.

    Raises:
        BadInputError: ``approval.unreadable``; until it is mended, none of them is answered.
    """
    try:
        return ApprovedBundles.model_validate_json((folder.path / "approved.json").read_bytes()).sha256
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise BadInputError(
            "approval.unreadable", "approved.json in the site's folder is damaged.", "Delete it and approve anew."
        ) from error


def approve(folder: SiteFolder, digest: str) -> None:
    """Answer messages of this bundle from now on, by the code that is installed here; journalled.

    Raises:
        BadInputError: ``approval.unreadable``; FedSegError as ``Journal.append``.
    """
    _change(folder, digest, approved=True)


def revoke(folder: SiteFolder, digest: str) -> None:
    """Refuse messages of this bundle again; journalled.

    Raises:
        BadInputError: ``approval.not-approved``, ``approval.unreadable``; FedSegError as ``Journal.append``.
    """
    _change(folder, digest, approved=False)


def _change(folder: SiteFolder, digest: str, *, approved: bool) -> None:
    with _alone(folder):
        before = approved_bundles(folder)
        if (digest in before) == approved:
            if approved:
                return
            raise BadInputError("approval.not-approved", "This bundle is not approved.", "See 'fedseg site approve'.")
        after = (*before, digest) if approved else tuple(known for known in before if known != digest)
        # what cannot be journalled is not done
        folder.journal.append(BundleApproved(sha256=digest, approved=approved))
        write_text(folder.path / "approved.json", ApprovedBundles(sha256=after).model_dump_json() + "\n", private=True)


@contextmanager
def _alone(folder: SiteFolder) -> Iterator[None]:
    try:
        with FileLock(folder.path / "approved.lock", timeout=_LOCK_S, mode=0o600):
            yield
    except Timeout as error:
        raise CannotDoHereError(
            "approval.busy", "Another process is changing the approvals.", "Try again in a moment."
        ) from error


def _listed(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, room: int) -> BundleFile:
    name = "".join(sign if sign.isprintable() else "?" for sign in entry.orig_filename)[:_MOST_NAME]
    if entry.compress_type not in _READ:
        return BundleFile(name=name, bytes=entry.file_size, sha256="")
    digest, size = hashlib.sha256(), 0
    with archive.open(entry) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
            if size > room:
                raise ValueError("unpacks to too much")
    return BundleFile(name=name, bytes=size, sha256=digest.hexdigest())


def _version(toml: bytes) -> str:
    try:
        found = tomllib.loads(toml.decode("utf-8"))["project"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) and _VERSION.fullmatch(found) else ""


def _read_lists(files: list[Path]) -> Iterator[BundleList]:
    for file in files:
        try:
            yield BundleList.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            _log.warning("the list %s cannot be read", file.name)


def _lists(folder: SiteFolder) -> Path:
    return folder.path / "refused"
