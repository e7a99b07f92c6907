"""The one file a coordinator sends to whom it invites: where to connect, whom to trust, and what is asked for.

It is signed with the coordinator's identity key, which it names itself. So the signature proves that nothing was
changed since, and not by whom it was made: for that, people compare the key's fingerprint by telephone.
"""

import datetime as dt
import json
import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from FedSegCore import __version__
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.names import Name
from FedSegCore.common.validation import problems_of
from FedSegCore.federation.addresses import ADDRESS_PATTERN
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.flower_version import SUPPORTED
from FedSegCore.federation.signed_file import Fault, SignedFileError, SignedFormat, read_bytes
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.models.signing import fingerprint_of, signature_is_good
from FedSegCore.volumes.labels import LabelContract

CLOCK_TOLERANCE = dt.timedelta(minutes=10)
"""An invitation may have been made this much later than it is here."""

MAX_DAYS = 366
"""An invitation holds for at most this many days."""

FORMAT = SignedFormat("invitation", 1)

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,39}$")]
Address = Annotated[str, Field(pattern=ADDRESS_PATTERN, max_length=300)]


class Invitation(BaseModel):
    """What a site learns of a federation before it joins.

    Attributes:
        id: 128 random bits; a join request names it.
        federation: the federation's name.
        addresses: ``host:port`` under which the coordinator is reached, the preferred one first.
        authority_certificate: PEM certificate of the federation's authority.
        flower: minor version of Flower that all roles run, ``"1.41"``.
        software_version: version of FedSegSlicer at the coordinator.
        app_sha256: hash of the app bundle that runs, see ``bundle.bundle_digest``.
        contract: the labels; None where the coordinator has not decided yet.
        groups: names of the groups, ``("all",)`` where all sites train one model; may be empty.
        privacy: rules of the federation, beside which each site's own policy holds.
        coordinator_public_key: Ed25519, hexadecimal; signs invitations and nothing else.
        release_public_key: Ed25519, hexadecimal; signs the federation's model releases.
        made: when it was made.
        expires: until when a site can join with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Hex32
    federation: Name
    addresses: Annotated[tuple[Address, ...], Field(min_length=1, max_length=32)]
    authority_certificate: Annotated[str, Field(max_length=16_384)]
    flower: Version
    software_version: Version
    app_sha256: Hex64
    contract: LabelContract | None = None
    groups: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    privacy: PrivacyRules = PrivacyRules()
    coordinator_public_key: Hex64
    release_public_key: Hex64
    made: AwareDatetime
    expires: AwareDatetime

    @field_validator("authority_certificate")
    @classmethod
    def _one_authority(cls, pem: str) -> str:
        certificates = x509.load_pem_x509_certificates(pem.encode("utf-8"))
        if len(certificates) != 1:
            raise ValueError("there must be one certificate")
        try:
            constraints = certificates[0].extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound as error:
            raise ValueError("it is no authority's certificate") from error
        if not constraints.ca:
            raise ValueError("it is no authority's certificate")
        return pem

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not dt.timedelta(0) < self.expires - self.made <= dt.timedelta(days=MAX_DAYS):
            raise ValueError("the time it holds for is impossible")
        if self.coordinator_public_key == self.release_public_key:
            raise ValueError("one key serves two roles")
        if any(int(address.rpartition(":")[2]) not in range(1, 65536) for address in self.addresses):
            raise ValueError("a port is impossible")
        return self

    @property
    def fingerprint(self) -> str:
        """The coordinator's fingerprint, to be compared by telephone."""
        return fingerprint_of(bytes.fromhex(self.coordinator_public_key))

    @property
    def release_key(self) -> bytes:
        """Raw public key of the federation's releases."""
        return bytes.fromhex(self.release_public_key)


def new_invitation_id() -> str:
    """Return 128 random bits."""
    return secrets.token_hex(16)


def write_invitation(invitation: Invitation, key: Ed25519PrivateKey, path: Path, *, private: bool = False) -> None:
    """Write an invitation, signed with the identity key whose public half it names."""
    FORMAT.write(path, invitation.model_dump(mode="json"), key.sign, private=private)


def parse_invitation(data: bytes) -> Invitation:
    """Return the invitation in ``data``, whatever its age and versions.

    Raises:
        BadInputError: ``invitation.too-large``, ``.not-json``, ``.foreign-format``, ``.tampered``, ``.invalid``.
    """
    try:
        content = FORMAT.parse(data, _signature_is_good)
    except SignedFileError as error:
        raise _refusal(error.fault) from error
    try:
        return Invitation.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise BadInputError(
            "invitation.invalid",
            f"The invitation does not hold what it should ({problems_of(error, 3)}).",
            "Ask the coordinator for a new invitation.",
        ) from error


def open_invitation(path: Path) -> Invitation:
    """Return the invitation in a file, whatever its age and versions.

    Raises:
        BadInputError: ``invitation.unreadable`` and those of ``parse_invitation``.
    """
    try:
        data = read_bytes(path)
    except SignedFileError as error:
        raise _refusal(error.fault) from error
    return parse_invitation(data)


def read_invitation(path: Path, now: dt.datetime | None = None) -> Invitation:
    """Return an invitation that can be joined with here and now.

    Args:
        path: the file.
        now: the time, with its zone; the machine's by default.

    Raises:
        BadInputError: as ``open_invitation``, ``require_in_time`` and ``require_same_software``.
    """
    invitation = open_invitation(path)
    require_in_time(invitation, now)
    require_same_software(invitation)
    return invitation


def require_in_time(invitation: Invitation, now: dt.datetime | None = None) -> None:
    """Raise BadInputError ``invitation.expired`` or ``invitation.from-the-future`` for what does not hold now."""
    time = now or dt.datetime.now(dt.UTC)
    if time > invitation.expires:
        raise BadInputError(
            "invitation.expired",
            f"The invitation expired on {invitation.expires:%Y-%m-%d}.",
            "Ask the coordinator for a new invitation; if it should still hold, check this machine's date.",
        )
    if invitation.made > time + CLOCK_TOLERANCE:
        raise BadInputError(
            "invitation.from-the-future",
            f"The invitation was made on {invitation.made:%Y-%m-%d %H:%M} UTC, which is still to come here.",
            "Correct this machine's date, time and time zone, or ask the coordinator to correct theirs.",
        )


def require_same_software(invitation: Invitation) -> None:
    """Raise BadInputError ``invitation.flower-version`` or ``invitation.app`` where this installation does not fit."""
    here = _flower_here()
    if invitation.flower != here:
        raise BadInputError(
            "invitation.flower-version",
            f"The federation runs Flower {invitation.flower}; here is {here or 'none'}.",
            f"Install FedSegSlicer {invitation.software_version}, or ask the coordinator to upgrade.",
        )
    if invitation.app_sha256 != bundle_digest(thin_bundle()):
        raise BadInputError(
            "invitation.app",
            f"The federation runs the app of FedSegSlicer {invitation.software_version}, here is {__version__}.",
            f"Install FedSegSlicer {invitation.software_version}, or ask the coordinator to upgrade.",
        )


def _flower_here() -> str:
    try:
        return ".".join(version("flwr").split(".")[:2])
    except PackageNotFoundError:
        return ""


def software_of_invitations() -> dict[str, str]:
    """Return what a new invitation says of the software here: ``flower``, ``software_version``, ``app_sha256``."""
    return {"flower": SUPPORTED, "software_version": __version__, "app_sha256": bundle_digest(thin_bundle())}


def _signature_is_good(content: dict[str, Any], signature: bytes, message: bytes) -> bool:
    return signature_is_good(bytes.fromhex(str(content.get("coordinator_public_key"))), signature, message)


def _refusal(fault: Fault) -> BadInputError:
    match fault:
        case "unreadable":
            return BadInputError(
                "invitation.unreadable", "The invitation cannot be read.", "Give the invitation's file."
            )
        case "too-large":
            return BadInputError(
                "invitation.too-large", "The file is too large for an invitation.", "Give the invitation's file."
            )
        case "no-json":
            return BadInputError(
                "invitation.not-json",
                "The file is no invitation.",
                "Give the file that the coordinator sent, unopened.",
            )
        case "foreign-format":
            return BadInputError(
                "invitation.foreign-format",
                "The invitation was made by another version of FedSegSlicer that this one cannot read.",
                "Install the version that the coordinator runs.",
            )
        case "tampered":
            return BadInputError(
                "invitation.tampered",
                "The invitation was changed after the coordinator had signed it.",
                "Ask the coordinator to send the invitation again, as a file.",
            )
