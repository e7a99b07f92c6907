"""Reading a release's small files without trusting them."""

import json
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.validation import places_of
from FedSegCore.models.card import ModelCard
from FedSegCore.models.signing import public_key_from_pem, signature_is_good

WEIGHTS = "weights.safetensors"
CARD = "card.json"
SIGNATURE = "card.json.sig"
PUBLIC_KEY = "coordinator.pub"

LARGEST = {WEIGHTS: 4 * 2**30, CARD: 2**20, SIGNATURE: 64, PUBLIC_KEY: 4096}
"""Bytes a file of a release may have; more is refused before it is read."""

FORMAT_VERSION = 1

COPY_AGAIN = "Delete this folder and copy the release again from the coordinator."


def verified_file(folder: Path, name: str) -> Path:
    """Return the path of a release's file once it is known to be a plain file of a sensible size.

    Raises:
        BadInputError: ``release.file-unusable``: missing, a link, not a plain file, empty or too large.
    """
    path = folder / name
    try:
        facts = path.lstat()
    except OSError as error:
        raise _file_unusable(folder.name, name, "is missing") from error
    # A link could point at any file of the machine that happens to be readable here.
    if not stat.S_ISREG(facts.st_mode):
        raise _file_unusable(folder.name, name, "is not a plain file")
    if facts.st_size == 0:
        raise _file_unusable(folder.name, name, "is empty")
    if facts.st_size > LARGEST[name]:
        raise _file_unusable(folder.name, name, "is too large")
    return path


def read_card(folder: Path) -> tuple[ModelCard, bytes]:
    """Return a release's card and the raw public key it was signed with, format, signature and schema checked.

    Raises:
        BadInputError: ``release.file-unusable``, ``release.format-unknown``, ``release.signature-wrong`` or
            ``release.card-invalid``.
    """
    text, signature, pem = (verified_file(folder, name).read_bytes() for name in (CARD, SIGNATURE, PUBLIC_KEY))
    return card_from(folder.name, text, signature, pem)


def card_from(name: str, text: bytes, signature: bytes, pem: bytes) -> tuple[ModelCard, bytes]:
    """Return the card in ``text`` and the raw public key it was signed with, like ``read_card``.

    Args:
        name: what to call the release in words.
        text: ``card.json``.
        signature: over ``text``.
        pem: the public key.
    """
    _check_format(name, text)
    try:
        public_key = public_key_from_pem(pem)
    except BadInputError as error:
        raise _file_unusable(name, PUBLIC_KEY, "is not an Ed25519 public key") from error
    if not signature_is_good(public_key, signature, text):
        raise BadInputError(
            "release.signature-wrong",
            f"The model card of {name} was changed after it was signed, or its signature is not the signer's.",
            COPY_AGAIN,
        )
    try:
        return ModelCard.model_validate_json(text), public_key
    except ValidationError as error:
        raise _card_invalid(name, f"does not follow the schema ({places_of(error, 5)})") from error


def _check_format(name: str, text: bytes) -> None:
    try:
        card: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _card_invalid(name, "is not JSON") from error
    version = card.get("format_version") if isinstance(card, dict) else None
    if isinstance(version, bool) or not isinstance(version, int):
        raise _card_invalid(name, "does not say which format it has")
    if version != FORMAT_VERSION:
        raise BadInputError(
            "release.format-unknown",
            f"{name} has format {version}; this FedSegSlicer reads format {FORMAT_VERSION}.",
            "Update FedSegSlicer, or ask the coordinator for a release in the older format.",
        )


def _file_unusable(release: str, name: str, why: str) -> BadInputError:
    return BadInputError("release.file-unusable", f"{name} of {release} {why}.", COPY_AGAIN)


def _card_invalid(name: str, why: str) -> BadInputError:
    return BadInputError("release.card-invalid", f"The model card of {name} {why}.", COPY_AGAIN)
