"""What a site's private store knows of its cases: the only place with the patient ids and file names it was given."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from FedSegCore.common.errors import UsageError
from FedSegCore.volumes.labels import LabelContract

CaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Role = Literal["train", "validation"]

MOST_NAME = 128
"""Letters of a name of who consents."""
MOST_PATIENT = 256
"""Letters of a site's id of a patient."""

VALIDATION_SHARE = 0.2
"""Share of a store's patients that are scored on and not trained on, unless a person says otherwise."""


class Consent(BaseModel):
    """Consent to train on a case.

    Attributes:
        by: who gave or recorded it.
        given: on which day.
        revoked: on which day it was taken back; None while it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
    given: date
    revoked: date | None = None


def consent_of(by: str, given: date | None = None) -> Consent:
    """Return a new consent, of today unless ``given`` says another day.

    Raises:
        UsageError: ``store.consent-name``; ``store.consent-day``: that day has not come yet.
    """
    name = by.strip()
    if not 1 <= len(name) <= MOST_NAME:
        raise UsageError(
            "store.consent-name",
            "A consent needs the name of who gives or records it.",
            f"Give one of at most {MOST_NAME} letters.",
        )
    today = date.today()
    if given is not None and given > today:
        raise UsageError(
            "store.consent-day",
            f"The consent is dated {given}, and that day has not come yet.",
            "Give the day on which it was given.",
        )
    return Consent(by=name, given=given or today)


class StoredCase(BaseModel):
    """A case of the store.

    Attributes:
        case: random id, the name of its folder; what journals and logs show.
        patient: the id of the patient as it was given; never leaves the store.
        pseudonym: stands for the patient outside the index.
        title: name of the image file as it was given, so that a person recognises the case.
        role: trained on, or only scored on.
        annotated: names of the contract's labels that the case annotates.
        added: on which day.
        sha256: of the image's voxels.
        labels_sha256: of the stored label map's voxels.
        accepted: codes of findings that a person accepted.
        consents: all consents there were, oldest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: CaseId
    patient: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_PATIENT)]
    pseudonym: Annotated[str, Field(pattern=r"^p-[0-9a-f]{16}$")]
    title: Annotated[str, Field(max_length=512)]
    role: Role
    annotated: tuple[str, ...]
    added: date
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    labels_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    accepted: tuple[str, ...] = ()
    consents: tuple[Consent, ...] = ()

    @property
    def consented(self) -> bool:
        """Whether there is a consent that was not taken back: without one a case is not used."""
        return bool(self.consents) and self.consents[-1].revoked is None


class CohortIndex(BaseModel):
    """Everything a store knows.

    Attributes:
        modality: DICOM modality code of all cases; None as long as there is none.
        contract: the labels that the cases' label maps are written in.
        naming: contract label → the site's own names or numbers for it, or ``"not annotated"``; said once for all.
        cases: in the order in which they were added.
        former: roles of patients whose cases with consent were removed, by a hash that only ``secret`` can make.
        secret: of this store, 256 random bits in hexadecimal; empty until something was removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")] | None = None
    contract: LabelContract | None = None
    naming: dict[str, tuple[str, ...] | str] = {}
    cases: tuple[StoredCase, ...] = ()
    former: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], Role] = {}
    secret: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    def naming_with(self, said: Mapping[str, tuple[str, ...] | str | None]) -> dict[str, tuple[str, ...] | str]:
        """Return the naming once more was said; None for a label takes back what was said of it."""
        return {name: words for name, words in {**self.naming, **said}.items() if words is not None}

    def of_patient(self, patient: str) -> StoredCase | None:
        """Return the patient's first case."""
        return next((case for case in self.cases if case.patient == patient), None)

    def role_for(self, patient: str, wanted: Role | None) -> Role | None:
        """Return the role of a new case: its patient's, else ``wanted``, else so that a fifth is validated on.

        A role never changes by itself afterwards: who was trained on must not be scored on later, also where all cases
        were removed in between. The first three patients give one to score on. None: ``wanted`` contradicts that.
        """
        present = self.of_patient(patient)
        if present is not None:
            return present.role if wanted in (None, present.role) else None
        former = self.former.get(self._hash(patient))
        if (former, wanted) == ("train", "validation"):
            return None
        if wanted is not None or former is not None:
            return wanted or former
        roles = {case.patient: case.role for case in self.cases}
        scored = sum(role == "validation" for role in roles.values())
        patients = len(roles) + 1
        goal = max(round(VALIDATION_SHARE * patients), 1 if patients >= 3 else 0)
        return "validation" if scored < goal else "train"

    def without(self, removed: StoredCase) -> Self:
        """Return the index without a case; what its patient was for is kept if it may have been used."""
        index = self.model_copy(update={"cases": tuple(case for case in self.cases if case != removed)})
        if not removed.consents:
            return index
        index = index.model_copy(update={"secret": self.secret or secrets.token_hex(32)})
        return index.model_copy(update={"former": {**self.former, index._hash(removed.patient): removed.role}})

    def _hash(self, patient: str) -> str:
        return hmac.new(bytes.fromhex(self.secret), patient.encode("utf-8"), hashlib.sha256).hexdigest()
