"""What the Federation tab shows of a site, as plain values."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from FedSegCore.federation.site.case_checks import CaseFinding
    from FedSegCore.federation.site.cohort_index import StoredCase
    from FedSegCore.federation.site.cohort_store import CohortStore
    from FedSegCore.federation.site.folder import SiteFolder


def member_row(folder: "SiteFolder") -> dict[str, Any]:
    """Return what a member is: its names, fingerprints, settings, rounds, and the structures' colors (0 to 255)."""
    from FedSegCore.federation.site.control import known_control, wanted_device
    from FedSegCore.federation.site.keys import read_public_key, short_fingerprint
    from FedSegCore.federation.site.round_records import read_rounds

    settings, invitation, control = folder.settings(), folder.invitation(), known_control(folder)
    contract = None if invitation is None else invitation.contract
    return {
        "name": settings.name,
        "federation": None if invitation is None else invitation.federation,
        "coordinator": settings.coordinator,
        "coordinator_fingerprint": None if invitation is None else invitation.fingerprint,
        "fingerprint": short_fingerprint(read_public_key(folder.public_key)),
        "request": str(folder.request_file) if folder.request_file.exists() else None,
        "paused": control.paused,
        "leaving": control.leaving,
        "hours": control.hours,
        "cores_free": control.cores_free,
        "device": wanted_device(folder),
        "rounds": [record.model_dump(mode="json") for record in read_rounds(folder)],
        "colours": {} if contract is None else {label.name: label.colour for label in contract.labels},
    }


def finding_row(found: "CaseFinding") -> dict[str, Any]:
    """Return a finding, and whether a person may accept it."""
    from FedSegCore.federation.site.case_checks import ACCEPTABLE

    return {**asdict(found), "acceptable": found.code in ACCEPTABLE}


def case_row(store: "CohortStore", case: "StoredCase") -> dict[str, Any]:
    """Return a case with its last consent and its picture."""
    last = case.consents[-1] if case.consents else None
    return {
        "case": case.case,
        "title": case.title,
        "patient": case.patient,
        "role": case.role,
        "annotated": list(case.annotated),
        "added": case.added.isoformat(),
        "consented": case.consented,
        "consent": None if last is None else last.model_dump(mode="json"),
        "thumbnail": str(store.thumbnail(case.case)),
    }
