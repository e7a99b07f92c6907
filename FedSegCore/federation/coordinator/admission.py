"""Who takes part: invitations out, requests in, sites admitted by the fingerprint they read out, and shut out again."""

import datetime as dt
import logging
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.federation.config import TOGETHER, FederationConfig
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.invitation import (
    MAX_DAYS,
    Invitation,
    new_invitation_id,
    open_invitation,
    software_of_invitations,
    write_invitation,
)
from FedSegCore.federation.join_request import JoinRequest, parse_request, read_request, request_bytes
from FedSegCore.federation.private_files import write_private
from FedSegCore.federation.site.keys import public_key_fingerprint, read_public_key, short_fingerprint
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.models.signing import load_or_make_key, public_key_of, same_fingerprint

_log = logging.getLogger(__name__)


def invite(
    folder: CoordinatorFolder, out: Path, config: FederationConfig | None, days: int, now: dt.datetime | None = None
) -> Invitation:
    """Write an invitation to ``out``, keep a copy, and return it; any number of sites can join with one.

    Args:
        folder: the coordinator.
        out: the file to send.
        config: what will be trained: labels, groups, privacy rules; None leaves them open.
        days: how long it holds, 1 to ``MAX_DAYS``.
        now: when it is made; the machine's time by default.

    Raises:
        UsageError: ``invitation.days``, ``invitation.out``.
        BadInputError: ``invitation.not-possible``, ``key.*``: the coordinator's files are damaged.
    """
    if not 1 <= days <= MAX_DAYS:
        raise UsageError("invitation.days", f"{days} days are not possible.", f"Give 1 to {MAX_DAYS} days.")
    made = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    identity = load_or_make_key(folder.identity_key)
    invitation = _invitation(
        folder,
        {
            "contract": config and config.contract,
            "groups": _groups(config),
            "privacy": PrivacyRules() if config is None else config.privacy,
            "coordinator_public_key": public_key_of(identity).hex(),
            "made": made,
            "expires": made + dt.timedelta(days=days),
        },
    )
    try:
        write_invitation(invitation, identity, out)
    except OSError as error:
        raise UsageError("invitation.out", f"{out.name} cannot be written.", "Give another --out.") from error
    write_invitation(invitation, identity, folder.invitations / f"{invitation.id}.json", private=True)
    return invitation


def _invitation(folder: CoordinatorFolder, told: dict[str, Any]) -> Invitation:
    """Return what is ``told`` and what the folder says, as a new invitation."""
    settings = folder.settings()
    try:
        of_the_folder = {
            "id": new_invitation_id(),
            "federation": settings.federation,
            "addresses": settings.addresses,
            "authority_certificate": folder.authority_certificate.read_text(encoding="ascii"),
            "release_public_key": public_key_of(load_or_make_key(folder.release_key)).hex(),
        }
        return Invitation.model_validate({**of_the_folder, **software_of_invitations(), **told})
    except (OSError, ValueError) as error:
        raise BadInputError(
            "invitation.not-possible",
            f"No invitation can be made of this coordinator and federation: {error}.",
            "Correct coordinator.json in its folder (at most 32 hosts), the group names, or restore ca/ca.crt.",
        ) from error


def _groups(config: FederationConfig | None) -> tuple[str, ...]:
    """Return the groups that a configuration names; others come into being with the first site of their modality."""
    if config is None:
        return ()
    if config.grouping == "together":
        return (TOGETHER,)
    return tuple(sorted({*config.preprocessing, *config.trainings, *config.networks} - {"default"}))


def add_request(
    folder: CoordinatorFolder, file: Path, now: dt.datetime | None = None, control: ControlClient | None = None
) -> JoinRequest:
    """Keep a request that came, until it is admitted, and return it.

    Args:
        folder: the coordinator.
        file: the request.
        now: the machine's time by default.
        control: a running SuperLink, to take the request of a site that is on the list and lost to SuperLink.

    Raises:
        BadInputError: as ``read_request``; ``request.other-invitation``, ``request.invitation-expired``,
            ``request.software``, ``request.admitted``, ``request.name-taken``.
    """
    data = request_bytes(file)
    request = parse_request(data)
    _require_admissible(folder, request, now, control)
    write_private(_kept(folder, request), data)
    return request


def pending(folder: CoordinatorFolder) -> tuple[JoinRequest, ...]:
    """Return the requests that wait, by name; a damaged copy is left out and logged."""
    found = []
    for path in sorted(folder.requests.glob("*.json")):
        try:
            found.append(read_request(path))
        except BadInputError as error:
            _log.warning("the request %s is left out: %s", path.name, error.code)
    return tuple(sorted(found, key=lambda request: request.site))


def admit(
    folder: CoordinatorFolder, control: ControlClient, who: str, fingerprint: str, now: dt.datetime | None = None
) -> AdmittedSite:
    """Let a site in whose request came, if the fingerprint that its people read out is that of its key.

    A site that is on the list, but lost to SuperLink (a backup without its database), is let in once more.

    Args:
        folder: the coordinator.
        control: its running SuperLink.
        who: the name in a request that waits, or a request's file.
        fingerprint: as told by the site; spaces, hyphens and case do not matter.
        now: the machine's time by default.

    Raises:
        BadInputError: ``admission.no-request``, ``admission.fingerprint`` and those of ``add_request``.
        CannotDoHereError: SuperLink does not run.
    """
    file = Path(who)
    waiting = [request for request in pending(folder) if request.site == who]
    named = [add_request(folder, file, now, control)] if file.is_file() else waiting
    if not named:
        raise BadInputError(
            "admission.no-request",
            f"There is no request of a site {who!r}.",
            "Look at 'fedseg coordinator requests', or give the request's file.",
        )
    request = next((request for request in named if _is_told(fingerprint, request.key)), None)
    if request is None:
        raise _wrong_fingerprint()
    _require_admissible(folder, request, now, control)
    site = control.admit_key(request.site, request.key)
    _kept(folder, request).unlink(missing_ok=True)
    return site


def admit_key(
    folder: CoordinatorFolder, control: ControlClient, name: str, file: Path, fingerprint: str
) -> AdmittedSite:
    """Let a site in that was set up without an invitation, by its key.pub; raises as ``admit``."""
    key = read_public_key(file)
    if not _is_told(fingerprint, key):
        raise _wrong_fingerprint()
    _require_free(folder, name, key, control)
    return control.admit_key(name, key)


def expel(folder: CoordinatorFolder, control: ControlClient, name: str) -> AdmittedSite:
    """Shut a site out for good: it gets no work any more, and its key is never admitted again.

    Raises:
        BadInputError: ``admission.no-site``.
        CannotDoHereError: SuperLink does not run.
    """
    named = [site for site in folder.sites() if site.name == name]
    if not named:
        raise BadInputError(
            "admission.no-site", f"No site {name!r} is admitted.", "Look at 'fedseg coordinator status' for the names."
        )
    for site in named:
        control.remove(site)
    return named[0]


def _kept(folder: CoordinatorFolder, request: JoinRequest) -> Path:
    return folder.requests / f"{request.key_sha256}.json"


def _require_admissible(
    folder: CoordinatorFolder, request: JoinRequest, now: dt.datetime | None, control: ControlClient | None
) -> None:
    copy = folder.invitations / f"{request.invitation}.json"
    if not copy.exists():
        raise BadInputError(
            "request.other-invitation",
            f"The request of {request.site} answers an invitation that was not made here.",
            "Check that the site was invited by this coordinator, and send it an invitation.",
        )
    invitation = open_invitation(copy)
    if (now or dt.datetime.now(dt.UTC)) > invitation.expires:
        raise BadInputError(
            "request.invitation-expired",
            f"The invitation of {request.site} expired on {invitation.expires:%Y-%m-%d}.",
            "Send the site a new invitation and let it join again.",
        )
    here = software_of_invitations()
    if (request.flower, request.app_sha256) != (here["flower"], here["app_sha256"]):
        raise BadInputError(
            "request.software",
            f"{request.site} runs FedSegSlicer {request.software_version} with Flower {request.flower}; "
            f"here is {here['software_version']} with {here['flower']}.",
            "Let both run the same version of FedSegSlicer, and the site join again.",
        )
    _require_free(folder, request.site, request.key, control)


def _require_free(
    folder: CoordinatorFolder, name: str, key: ec.EllipticCurvePublicKey, control: ControlClient | None
) -> None:
    for site in folder.sites():
        if site.fingerprint == public_key_fingerprint(key):
            if control is not None and not control.knows(site):
                continue
            raise BadInputError(
                "request.admitted",
                f"This key is admitted already, as {site.name}.",
                "There is nothing to do. After a restore without superlink.db, give the request's file to "
                "'fedseg coordinator admit'.",
            )
        if site.name.casefold() == name.casefold():
            raise BadInputError(
                "request.name-taken",
                f"Another site is admitted as {site.name}.",
                "Let the new site choose another name, or expel the other one first.",
            )


def _is_told(told: str, key: ec.EllipticCurvePublicKey) -> bool:
    """Return whether ``told`` is one of the two fingerprints of ``key``."""
    return same_fingerprint(told, short_fingerprint(key)) or told.strip() == public_key_fingerprint(key)


def _wrong_fingerprint() -> BadInputError:
    return BadInputError(
        "admission.fingerprint",
        "The fingerprint that was read out is not that of this request.",
        "Do not admit it. Let the site read it out again; if it still differs, somebody may have changed the request: "
        "ask for it again another way.",
    )
