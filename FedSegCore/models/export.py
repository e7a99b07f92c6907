"""A release for people outside the federation: a folder or zip with everything needed to check and use it, and back."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.common.files import rename_patiently, sha256_of, whole_file, whole_folder, write_text
from FedSegCore.models.release import Release, open_release, release_id
from FedSegCore.models.verification import CARD, LARGEST, PUBLIC_KEY, SIGNATURE, WEIGHTS, read_card

Format = Literal["fedseg", "monai-bundle"]

README = "README.txt"
CHECKSUMS = "SHA256SUMS"

_PARTS = (WEIGHTS, CARD, SIGNATURE, PUBLIC_KEY)
_TEXTS = {README: 64 * 1024, CHECKSUMS: 64 * 1024}
_CHUNK = 1 << 20
_MOST_ENTRIES = 32
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def export_release(release: Release, out: Path, kind: Format = "fedseg") -> Path:
    """Write a release to ``out``, whole or not at all, and return it.

    Args:
        release: an opened, hence verified release.
        out: a new folder, or a new file ending in ``.zip``, in which everything lies in one folder.
        kind: ``"fedseg"``: what ``import_release`` reads; ``"monai-bundle"``: for MONAI's runner.

    Raises:
        UsageError: ``output.exists``, ``output.no-folder``.
        BadInputError: ``export.not-for-monai``, ``release.*``.
    """
    if out.exists():
        raise UsageError("output.exists", f"{out.name} exists already.", "Give another folder or file to write.")
    if not out.absolute().parent.is_dir():
        raise UsageError("output.no-folder", "The folder to write to does not exist.", "Make it first.")
    if out.suffix.lower() != ".zip":
        with whole_folder(out.absolute()) as folder:
            _fill(folder, release, kind)
        return out
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.absolute().parent) as beside:
        folder = Path(beside) / release.id
        folder.mkdir()
        _fill(folder, release, kind)
        with whole_file(out.absolute()) as target:
            _zip(folder, target)
    return out


def import_release(source: Path, releases: Path, trusted: Collection[bytes] | None = None) -> Release:
    """Take an exported release (zip or folder) into a folder of releases, after checking all of it.

    Nothing in a zip chooses where anything is written: only the files a release has are read, wherever they lie in it,
    each under its known name and up to its known size.

    Args:
        source: what ``export_release`` wrote with kind ``"fedseg"``.
        releases: folder of releases; made if absent.
        trusted: as for ``open_release``.

    Raises:
        BadInputError: ``import.*``; ``release.*``: the release itself is damaged, or its signer is not trusted.
        CannotDoHereError: ``import.disk-full``.
    """
    if not source.exists():
        raise BadInputError("import.unreadable", f"{source.name} is not there.", "Give an exported release.")
    releases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing-", dir=releases) as beside:
        folder = Path(beside) / "incoming"
        folder.mkdir()
        with _opened(source) as parts:
            for part, stream in parts:
                _copy(stream, folder / part, {**LARGEST, **_TEXTS}[part])
        card, _ = read_card(folder)
        named = folder.with_name(release_id(card.name, card.version))
        rename_patiently(folder, named)
        imported = open_release(named, trusted)
        target = releases / imported.id
        if not target.exists():
            rename_patiently(named, target)
        elif (target / CARD).read_bytes() != (named / CARD).read_bytes():
            raise BadInputError(
                "import.exists",
                f"There is another release called {imported.id} here.",
                "Move the other one away first; compare the signers' fingerprints.",
            )
    return open_release(target, trusted)


def _fill(folder: Path, release: Release, kind: Format) -> None:
    if kind == "monai-bundle":
        from FedSegCore.models.monai_bundle import write_monai_bundle  # torch takes seconds to import

        write_monai_bundle(folder, release)
    else:
        for name in _PARTS:
            shutil.copyfile(release.path / name, folder / name)
        write_text(folder / README, _readme(release))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    write_text(folder / CHECKSUMS, "".join(sums))


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")


Parts = Iterator[tuple[str, IO[bytes]]]


@contextmanager
def _opened(source: Path) -> Iterator[Parts]:
    """Yield (name, stream) of the files of a release, one after another."""
    if source.is_dir():
        yield _files_of_folder(source)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            yield _files_of_zip(archive)
    except (*_DAMAGED, OSError) as error:
        raise _unreadable(source.name, "is damaged, encrypted or no zip file") from error


def _files_of_folder(source: Path) -> Parts:
    for name in (*_PARTS, *_TEXTS):
        path = source / name
        if path.is_symlink() or not path.is_file():
            if name in _PARTS:
                raise _unreadable(source.name, f"has no plain file {name}")
            continue
        with path.open("rb") as stream:
            yield name, stream


def _files_of_zip(archive: zipfile.ZipFile) -> Parts:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [entry.filename.rpartition("/")[2] for entry in entries]
    known = (*_PARTS, *_TEXTS)
    if len(archive.infolist()) > _MOST_ENTRIES or len(set(names)) != len(names) or not set(names) <= set(known):
        raise _unreadable("The zip", "does not hold one exported release and nothing else")
    for name, entry in zip(names, entries, strict=True):
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.compress_type not in _METHODS or kind not in (0, stat.S_IFREG):
            raise _unreadable("The zip", "holds a link, or a file packed in an unusual way")
        with archive.open(entry) as stream:
            yield name, stream


def _copy(stream: IO[bytes], target: Path, largest: int) -> None:
    """Write what ``stream`` gives; what a header says of its size is not believed."""
    written = 0
    try:
        with target.open("xb") as file:
            while chunk := stream.read(_CHUNK):
                written += len(chunk)
                if written > largest:
                    raise BadInputError(
                        "import.too-large", f"{target.name} is larger than it may be.", "Ask for the release again."
                    )
                file.write(chunk)
    except OSError as error:
        raise CannotDoHereError(
            "import.disk-full", f"{target.name} cannot be written: {error.strerror or 'no space'}.", "Free some space."
        ) from error


def _unreadable(what: str, why: str) -> BadInputError:
    return BadInputError("import.unreadable", f"{what} {why}.", "Ask for the exported release again.")


def _readme(release: Release) -> str:
    card = release.card
    scores = [
        f"  {s.label}: {s.metric} {s.mean:.3f} (standard deviation {s.standard_deviation:.3f}, {s.cases} cases)"
        for s in card.scores
    ]
    return _README.format(
        id=release.id,
        federation=card.federation,
        kinds=", ".join(sorted(card.modalities)),
        labels=", ".join(label.name for label in card.given_labels),
        sites=len(card.training_sites),
        rounds=card.rounds,
        created=f"{card.created:%Y-%m-%d}",
        scores="\n".join(scores) or "  none were sent",
        signer=release.signer,
    )


_README = """{id}: a segmentation model

For:        {kinds} images
Gives:      {labels}
Made by:    the federation {federation}; {sites} sites, {rounds} rounds, {created}
Signed by:  {signer}

Research use only; not a medical device. Every segmentation must be checked by a qualified person.

Scores on the sites' own validation cases, of the model as it was before the last round's training:
{scores}

To use it with FedSegSlicer:

    fedseg releases import {id}.zip --releases RELEASES
    fedseg segment IMAGE --releases RELEASES --out IMAGE.seg.nrrd

Before you trust it, let the coordinator read out the fingerprint of its releases over the telephone. Only if it is the
signer's above, keep coordinator.pub and give it with --trusted: releases of anybody else are then refused. The key
alone, out of the same file, proves nothing.

Files: weights.safetensors (the network's weights), card.json (what it is and where it comes from), card.json.sig and
coordinator.pub (the signature over the card, which names the weights' SHA-256), SHA256SUMS (check a download with
"sha256sum -c SHA256SUMS"; unlike the signature this proves nothing about who made it).
"""
