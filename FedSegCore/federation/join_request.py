"""What a site sends to be admitted: its name and its public key, signed with the private half to prove it has that."""

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.names import Name
from FedSegCore.common.validation import problems_of
from FedSegCore.federation.invitation import Hex32, Hex64, Invitation, Version, software_of_invitations
from FedSegCore.federation.signed_file import Fault, SignedFileError, SignedFormat, read_bytes
from FedSegCore.federation.site.keys import load_public_key, public_key_line, short_fingerprint

FORMAT = SignedFormat("join-request", 1)


class JoinRequest(BaseModel):
    """Who asks to be admitted.

    Attributes:
        site: the name the site wants to have.
        federation: the federation it was invited to.
        invitation: id of the invitation.
        public_key: the site's key, one line in OpenSSH form.
        flower: minor version of Flower at the site.
        software_version: version of FedSegSlicer at the site.
        app_sha256: hash of the app bundle that the site answers.
        made: when it was made, by the site's clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    federation: Name
    invitation: Hex32
    public_key: Annotated[str, Field(max_length=512)]
    flower: Version
    software_version: Version
    app_sha256: Hex64
    made: AwareDatetime

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """The site's public key."""
        return load_public_key(self.public_key.encode("ascii"))

    @property
    def fingerprint(self) -> str:
        """What the site reads out by telephone."""
        return short_fingerprint(self.key)

    @property
    def key_sha256(self) -> str:
        """Hexadecimal SHA-256 of the public key's line; names the request in files."""
        return hashlib.sha256(self.public_key.encode("ascii")).hexdigest()


def make_request(site: str, invitation: Invitation, key: ec.EllipticCurvePrivateKey) -> JoinRequest:
    """Return the request of the site called ``site`` that owns ``key``."""
    return JoinRequest.model_validate(
        {
            "site": site,
            "federation": invitation.federation,
            "invitation": invitation.id,
            "public_key": public_key_line(key.public_key()),
            **software_of_invitations(),
            "made": dt.datetime.now(dt.UTC).replace(microsecond=0),
        }
    )


def write_request(request: JoinRequest, key: ec.EllipticCurvePrivateKey, path: Path, *, private: bool = False) -> None:
    """Write a request, signed with the site's own key."""
    content = request.model_dump(mode="json")
    FORMAT.write(path, content, lambda message: key.sign(message, ec.ECDSA(hashes.SHA384())), private=private)


def parse_request(data: bytes) -> JoinRequest:
    """Return the request in ``data``; its signature by the key it names is checked.

    Raises:
        BadInputError: ``request.too-large``, ``.not-json``, ``.foreign-format``, ``.tampered``, ``.invalid``.
    """
    try:
        content = FORMAT.parse(data, _signature_is_good)
    except SignedFileError as error:
        raise _refusal(error.fault) from error
    try:
        return JoinRequest.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise BadInputError(
            "request.invalid",
            f"The request does not hold what it should ({problems_of(error, 3)}).",
            "Ask the site to join again.",
        ) from error


def read_request(path: Path) -> JoinRequest:
    """Return the request in a file; raises BadInputError ``request.unreadable`` and as ``parse_request``."""
    return parse_request(request_bytes(path))


def request_bytes(path: Path) -> bytes:
    """Return a request's file as it came; raises BadInputError ``request.unreadable``, ``request.too-large``."""
    try:
        return read_bytes(path)
    except SignedFileError as error:
        raise _refusal(error.fault) from error


def _signature_is_good(content: dict[str, Any], signature: bytes, message: bytes) -> bool:
    try:
        key = load_public_key(str(content.get("public_key")).encode("ascii"))
        key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
    except (BadInputError, InvalidSignature):
        return False
    return public_key_line(key) == content["public_key"]


def _refusal(fault: Fault) -> BadInputError:
    match fault:
        case "unreadable":
            return BadInputError("request.unreadable", "The request cannot be read.", "Give the site's request file.")
        case "too-large":
            return BadInputError(
                "request.too-large", "The file is too large for a request.", "Give the site's request file."
            )
        case "no-json":
            return BadInputError(
                "request.not-json", "The file is no request to join.", "Give the file that the site sent, unopened."
            )
        case "foreign-format":
            return BadInputError(
                "request.foreign-format",
                "The request was made by another version of FedSegSlicer that this one cannot read.",
                "Ask the site to install the version that runs here.",
            )
        case "tampered":
            return BadInputError(
                "request.tampered",
                "The request was changed after the site had signed it.",
                "Ask the site to send its request file again.",
            )
