"""A release: one trained model as a folder that can be copied, checked and trusted.

``<name>-v<version>/`` holds ``weights.safetensors``, ``card.json`` (which names the weights' SHA-256),
``card.json.sig`` (64 bytes, Ed25519 over the exact bytes of ``card.json``) and ``coordinator.pub`` (the signer's public
key, PEM). A good signature alone says that nothing was changed since it was signed; who signed is only known where the
caller gives the keys it trusts.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import sha256_of, whole_folder
from FedSegCore.common.packages import installed_versions
from FedSegCore.common.validation import problems_of
from FedSegCore.models.card import ModelCard
from FedSegCore.models.signing import fingerprint_of, public_key_of, public_key_to_pem
from FedSegCore.models.verification import CARD, PUBLIC_KEY, SIGNATURE, WEIGHTS, read_card, verified_file

Weights = dict[str, npt.NDArray[np.generic]]
Report = Callable[[str, BadInputError], None]

PACKAGES = ("fedsegslicer", "torch", "monai", "flwr", "numpy", "safetensors")
"""Whose versions go into the card."""

_FOLDER = re.compile(r"(?P<name>.+)-v(?P<version>[1-9][0-9]{0,8})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """A release whose schema, signature and, unless only its card was asked for, weights were right when it was opened.

    ``weights`` gives none that are not those of the signed card.

    Attributes:
        path: its folder.
        card: its model card.
        signer: fingerprint of the key that signed it, to compare with what the coordinator says.
        trusted: the signer is among the keys the caller trusts; False where no keys were given.
    """

    path: Path
    card: ModelCard
    signer: str
    trusted: bool

    @property
    def id(self) -> str:
        """The release's name with its version (``"demo-CT-v3"``)."""
        return release_id(self.card.name, self.card.version)

    def check_weights(self) -> None:
        """Compare the weights' file with the card.

        Raises:
            BadInputError: ``release.weights-changed``, ``release.file-unusable``.
        """
        if sha256_of(verified_file(self.path, WEIGHTS)) != self.card.weights_sha256:
            raise _weights_changed(self.id)

    def weights(self) -> Weights:
        """Return state-dict name → array (own memory, writable), checked once more against the card.

        Raises:
            BadInputError: ``release.weights-changed``, ``release.weights-malformed``, ``release.file-unusable``.
        """
        data = verified_file(self.path, WEIGHTS).read_bytes()
        # The bytes that are parsed are the bytes that are checked: the file may have changed since it was opened.
        if hashlib.sha256(data).hexdigest() != self.card.weights_sha256:
            raise _weights_changed(self.id)
        try:
            weights = {name: np.array(array) for name, array in safetensors.load(data).items()}
        except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a number type that NumPy lacks
            raise _weights_malformed(self.id, "the file is not in the safetensors format") from error
        if broken := first_not_finite(weights):
            raise _weights_malformed(self.id, f"{broken[:80]} holds values that are not numbers")
        return weights


def release_id(name: str, version: int) -> str:
    """Return the folder name of a release."""
    return f"{name}-v{version}"


def first_not_finite(weights: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """Return the name of the first array that holds NaN or an infinity, None where all are finite."""
    return next((name for name, array in weights.items() if not np.isfinite(array).all()), None)


def publish_release(
    folder: Path,
    card_fields: Mapping[str, Any],
    weights: Mapping[str, npt.NDArray[np.generic]],
    key: Ed25519PrivateKey,
) -> Path:
    """Write a new release, whole or not at all, and return its folder.

    Args:
        folder: holds all releases; made if absent.
        card_fields: fields of ``ModelCard`` but ``version`` (the newest of that name + 1) and ``weights_sha256``;
            ``created`` (now) and ``software`` (what is installed here) may be left out.
        weights: state-dict name → array.
        key: the coordinator's private key.

    Raises:
        BadInputError: ``release.card-invalid`` or ``release.weights-malformed``; nothing is written.
    """
    name = str(card_fields.get("name", ""))
    _check_weights(name, weights)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.save({n: np.asarray(a, order="C") for n, a in weights.items()})
    for _ in range(100):
        card = _card(card_fields, hashlib.sha256(data).hexdigest(), _newest_version(folder, name) + 1)
        target = folder / release_id(card.name, card.version)
        try:
            with whole_folder(target) as beside:
                _write(beside, card, data, key)
        except OSError:
            if not target.exists():
                raise
            continue  # another process has just published this version; take the next
        return target
    raise FileExistsError(folder.name)


def check_release(card_fields: Mapping[str, Any], weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Raise what ``publish_release`` would raise of these fields and weights; nothing is written."""
    _check_weights(str(card_fields.get("name", "")), weights)
    _card(card_fields, "0" * 64, 1)


def _check_weights(name: str, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    if not weights:
        raise _weights_malformed(name, "there are none")
    if broken := first_not_finite(weights):
        raise _weights_malformed(name, f"{broken[:80]} holds values that are not numbers")


def _card(card_fields: Mapping[str, Any], weights_sha256: str, version: int) -> ModelCard:
    given = {"created": datetime.now(UTC), "software": software_versions(), **card_fields}
    try:
        return ModelCard.model_validate({**given, "weights_sha256": weights_sha256, "version": version})
    except ValidationError as error:
        raise _card_invalid(str(card_fields.get("name", "")) or "without a name", error) from error


def open_release(path: Path, trusted: Collection[bytes] | None = None, *, card_only: bool = False) -> Release:
    """Return the release in folder ``path`` after checking signature, schema, sizes and the weights' hash.

    Args:
        path: the release folder.
        trusted: raw 32-byte public keys; a release signed by another key is refused. None checks that the release is
            unchanged, not who made it.
        card_only: leave the weights' hash to ``Release.weights`` or ``Release.check_weights``.

    Raises:
        BadInputError: ``release.*``: what is wrong and what to do.
    """
    if path.is_symlink() or not path.is_dir():
        raise BadInputError(
            "release.missing", f"There is no release folder {path.name}.", "Choose one of the listed releases."
        )
    path = path.resolve()
    card, public_key = read_card(path)
    if trusted is not None and public_key not in trusted:
        raise BadInputError(
            "release.signer-unknown",
            f"{path.name} was signed by {fingerprint_of(public_key)}, which is not a coordinator you trust.",
            "Compare this with the fingerprint of your coordinator's releases by phone before you trust it.",
        )
    if path.name != release_id(card.name, card.version):
        raise BadInputError(
            "release.misnamed",
            f"The folder {path.name} holds release {release_id(card.name, card.version)}.",
            "Give the folder that name again.",
        )
    release = Release(path, card, fingerprint_of(public_key), trusted is not None)
    if card_only:
        verified_file(path, WEIGHTS)
    else:
        release.check_weights()
    return release


def list_releases(
    folder: Path,
    modality: str | None = None,
    trusted: Collection[bytes] | None = None,
    report: Report | None = None,
    *,
    card_only: bool = False,
) -> list[Release]:
    """Return the usable releases, newest first; broken ones are left out and reported.

    Several names are ordered by when their newest version was made; one name's releases by their versions.

    Args:
        folder: holds the releases; an absent folder holds none.
        modality: only releases that segment this modality.
        trusted: as for ``open_release``.
        report: called with folder name and error of each broken release; None logs a warning.
        card_only: as for ``open_release``: nothing is said of weights that were changed.
    """
    releases = []
    for path in _release_folders(folder):
        try:
            release = open_release(path, trusted, card_only=card_only)
        except BadInputError as error:
            (report or _warn)(path.name, error)
        else:
            releases.append(release)
    latest = {r.card.name: r.card for r in sorted(releases, key=lambda r: r.card.version)}
    chosen = [r for r in releases if modality is None or modality in r.card.modalities]
    return sorted(chosen, key=lambda r: (latest[r.card.name].created, r.card.name, r.card.version), reverse=True)


def choose_release(
    folder: Path,
    modality: str,
    name: str | None = None,
    trusted: Collection[bytes] | None = None,
    *,
    card_only: bool = False,
) -> Release:
    """Return the newest release for ``modality``, or the one asked for; of the others no weights are read.

    Args:
        folder: holds the releases.
        modality: DICOM modality code of the image.
        name: a release id (``"demo-CT-v3"``), a release name (its newest version), or None for the newest of all.
        trusted: as for ``open_release``.
        card_only: as for ``open_release``, for who does not use the weights.

    Raises:
        BadInputError: ``release.none``; ``release.wrong-modality``; the release asked for is broken;
            ``release.signer-unknown`` where all that is there was signed by keys that are not trusted.
    """
    broken: dict[str, BadInputError] = {}
    releases = list_releases(folder, trusted=trusted, report=broken.__setitem__, card_only=True)
    if name in broken:
        raise broken[name]
    named = [r for r in releases if name is None or name in (r.id, r.card.name)]
    for release in [r for r in named if modality in r.card.modalities]:
        try:
            if not card_only:
                release.check_weights()
        except BadInputError as error:
            if name == release.id:
                raise
            broken[release.id] = error
            named.remove(release)
        else:
            return release
    raise _none_fits(modality, name, named, broken)


def _none_fits(
    modality: str, name: str | None, named: list[Release], broken: Mapping[str, BadInputError]
) -> BadInputError:
    if name is not None and named:
        segments = ", ".join(sorted(named[0].card.modalities))
        return BadInputError(
            "release.wrong-modality",
            f"{name} segments {segments} images, not {modality}.",
            f"Choose a release for {modality}, or correct the image's modality.",
        )
    if not named:
        for folder_name, error in broken.items():
            asked_for = name is None or folder_name.rpartition("-v")[0] == name
            if asked_for and error.code == "release.signer-unknown":
                return error
    what = f"called {name}" if name is not None else f"for {modality} images"
    unusable = f" ({len(broken)} could not be used: {', '.join(sorted(broken))})" if broken else ""
    return BadInputError(
        "release.none",
        f"There is no usable release {what} in this folder{unusable}.",
        "Give the folder that holds your federation's releases, or ask the coordinator for one.",
    )


def software_versions() -> dict[str, str]:
    """Return package → version of what a release depends on, as installed here."""
    return installed_versions(PACKAGES)


def _write(folder: Path, card: ModelCard, weights: bytes, key: Ed25519PrivateKey) -> None:
    text = (card.model_dump_json(indent=2) + "\n").encode()
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).write_bytes(text)
    (folder / SIGNATURE).write_bytes(key.sign(text))
    (folder / PUBLIC_KEY).write_bytes(public_key_to_pem(public_key_of(key)))


def _release_folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if _FOLDER.fullmatch(p.name))


def _newest_version(folder: Path, name: str) -> int:
    # Broken releases count too: their version was used and must not come back with another content.
    matches = (_FOLDER.fullmatch(path.name) for path in _release_folders(folder))
    return max((int(match["version"]) for match in matches if match and match["name"] == name), default=0)


def _warn(name: str, error: BadInputError) -> None:
    _log.warning("release %s is left out: %s", name, error)


def _weights_changed(name: str) -> BadInputError:
    return BadInputError(
        "release.weights-changed",
        f"The weights of {name} are not those its model card names.",
        "Delete this folder and copy the release again from the coordinator.",
    )


def _weights_malformed(name: str, why: str) -> BadInputError:
    return BadInputError(
        "release.weights-malformed", f"The weights of {name} cannot be used: {why}.", "Ask the coordinator for another."
    )


def _card_invalid(name: str, error: ValidationError) -> BadInputError:
    problems = problems_of(error, 5)
    return BadInputError("release.card-invalid", f"The model card of {name}: {problems}.", "Correct the named entries.")
