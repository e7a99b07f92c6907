"""What a site's journal can hold: one kind of entry per event, numbers and hashes only.

No field takes free text, so that no name, path or DICOM tag of a patient can get in, whoever writes the entry.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Code = Annotated[str, Field(pattern=r"^(cancelled|[a-z0-9-]{1,40}(\.[a-z0-9-]{1,60}){1,3})$")]
Modality = Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
CaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Number = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

FIRST_PREVIOUS = "0" * 64
"""``previous`` of the first entry."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Enrolled(_Entry):
    """The site was set up: hash of its public key file, and of the authority certificate that it trusts."""

    kind: Literal["enrolled"] = "enrolled"
    key_sha256: Sha256
    authority_sha256: Sha256


class InvitationAccepted(_Entry):
    """The site joined with an invitation: hash of its file, and of the coordinator's public key that signed it.

    ``compared`` tells whether the fingerprint of that key was typed in as heard from the coordinator, and agreed.
    """

    kind: Literal["invitation-accepted"] = "invitation-accepted"
    invitation_sha256: Sha256
    coordinator_key_sha256: Sha256
    compared: bool


class CohortRead(_Entry):
    """The images were read and prepared."""

    kind: Literal["cohort-read"] = "cohort-read"
    modality: Modality
    training_cases: Count
    validation_cases: Count
    set_aside: Count
    cohort_sha256: Sha256


class Introduced(_Entry):
    """The site told the server who it is: numbers of cases as told, bytes and hash of the whole answer."""

    kind: Literal["introduced"] = "introduced"
    training_cases: Count
    validation_cases: Count
    bytes: Count
    sha256: Sha256


class OrderReceived(_Entry):
    """A server asked for a round of training; ``bytes`` are those of the received model."""

    kind: Literal["order-received"] = "order-received"
    round_number: Count
    rounds: Count
    modality: Modality
    tensors: Count
    bytes: Count
    steps: Count | None
    epochs: Count
    batch_size: Count


class Left(_Entry):
    """A round's answer left the site: exactly ``bytes`` with this hash (see ``federation.payload``).

    ``noise_multiplier``, ``delta`` and the running ``epsilon`` are there where noise was added; with noise and without
    ``epsilon`` there is no bound, since rounds left without noise before.
    """

    kind: Literal["left"] = "left"
    round_number: Count
    tensors: Count
    bytes: Count
    sha256: Sha256
    examples: Count
    scores: Count
    suppressed: bool
    norm: Number
    clipped: bool
    noise_multiplier: Number | None = None
    delta: Number | None = None
    epsilon: Number | None = None


class Refused(_Entry):
    """Something was refused or failed; the server learnt ``code`` and nothing else.

    ``sha256`` is that of a refused app bundle.
    """

    kind: Literal["refused"] = "refused"
    code: Code
    round_number: Count | None = None
    measured: Number | None = None
    allowed: Number | None = None
    sha256: Sha256 | None = None


class ReleaseUsed(_Entry):
    """A model release segmented an image here: the hash of its weights."""

    kind: Literal["release-used"] = "release-used"
    modality: Modality
    weights_sha256: Sha256


class ReleaseReceived(_Entry):
    """A release came from the coordinator and was taken: the hash and size of its weights."""

    kind: Literal["release-received"] = "release-received"
    weights_sha256: Sha256
    bytes: Count


class GinChosen(_Entry):
    """The site chose GIN settings of its own for its training, or went back to the federation's (``own`` false)."""

    kind: Literal["gin-chosen"] = "gin-chosen"
    own: bool
    alpha_low: Number | None = None
    alpha_high: Number | None = None
    layers: Count | None = None
    kernel_sizes: tuple[Count, ...] = ()
    per_batch: bool | None = None


class GinUsed(_Entry):
    """A round was trained while the site had GIN settings of its own; ``own`` false: the federation did not let it."""

    kind: Literal["gin-used"] = "gin-used"
    round_number: Count
    own: bool


class UsualTold(_Entry):
    """A round's answer told what is usual in the training cohort: of so many structures, and of the images' look.

    Every number told is of ``fewest_patients`` patients or more.
    """

    kind: Literal["usual-told"] = "usual-told"
    round_number: Count
    volumes: Count
    look: bool
    fewest_patients: Count


class BundleApproved(_Entry):
    """The site's owner lets messages of an app bundle be answered, or does not any more."""

    kind: Literal["bundle-approved"] = "bundle-approved"
    sha256: Sha256
    approved: bool


class CaseAdded(_Entry):
    """A case was taken into the site's store; ``case`` is the store's own random id."""

    kind: Literal["case-added"] = "case-added"
    case: CaseId


class CaseRemoved(_Entry):
    """The store's copy of a case was deleted."""

    kind: Literal["case-removed"] = "case-removed"
    case: CaseId


class ConsentGiven(_Entry):
    """A case may be trained on from now on; by whom stands in the store only."""

    kind: Literal["consent-given"] = "consent-given"
    case: CaseId


class ConsentRevoked(_Entry):
    """A case is in no further round."""

    kind: Literal["consent-revoked"] = "consent-revoked"
    case: CaseId


class ControlChanged(_Entry):
    """Somebody at the site paused it, let it go on, left the federation, or deleted all but this journal."""

    kind: Literal["control-changed"] = "control-changed"
    what: Literal["paused", "resumed", "leaving", "forgotten"]


class PolicyChanged(_Entry):
    """The site's policy is another one than before: hash of its file, and the minimum of patients it asks for."""

    kind: Literal["policy-changed"] = "policy-changed"
    policy_sha256: Sha256
    minimum_cases: Count


class Healed(_Entry):
    """An entry was being written when the machine stopped: so many unfinished bytes stand before this line."""

    kind: Literal["healed"] = "healed"
    bytes: Count
    sha256: Sha256


Entry = (
    Enrolled
    | CohortRead
    | Introduced
    | OrderReceived
    | Left
    | Refused
    | ReleaseUsed
    | ReleaseReceived
    | InvitationAccepted
    | GinChosen
    | GinUsed
    | UsualTold
    | BundleApproved
    | CaseAdded
    | CaseRemoved
    | ConsentGiven
    | ConsentRevoked
    | ControlChanged
    | PolicyChanged
    | Healed
)


class Line(BaseModel):
    """One line of a journal.

    Attributes:
        number: 1-based, through all files.
        time: UTC, to the second.
        previous: hash of the line before.
        entry: what happened.
        hash: SHA-256 of all the above as canonical JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    number: Annotated[int, Field(ge=1)]
    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    previous: Sha256
    entry: Annotated[Entry, Field(discriminator="kind")]
    hash: Sha256

    @classmethod
    def make(cls, number: int, time: str, previous: str, entry: Entry) -> "Line":
        """Return a new line with its hash."""
        line = cls(number=number, time=time, previous=previous, entry=entry, hash=FIRST_PREVIOUS)
        return line.model_copy(update={"hash": line.true_hash()})

    def true_hash(self) -> str:
        """Return what ``hash`` must be."""
        return hashlib.sha256(_canonical(self.model_dump(mode="json", exclude={"hash"}))).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the line as it stands in the file, without its end of line."""
        return _canonical(self.model_dump(mode="json"))


def parse_line(raw: bytes) -> Line | None:
    """Return a line whose hash is right and that is written to the byte as it is here; None for anything else."""
    try:
        line = Line.model_validate_json(raw)
    except ValueError:
        return None
    return line if line.hash == line.true_hash() and line.to_bytes() == raw else None


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
