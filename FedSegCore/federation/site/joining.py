"""From an invitation to a site: what it trusts, its own key, and the request that the coordinator admits."""

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.files import sha256_of
from FedSegCore.common.validation import problems_of
from FedSegCore.federation.invitation import Invitation, read_invitation
from FedSegCore.federation.join_request import make_request, write_request
from FedSegCore.federation.private_files import private_folder, write_private
from FedSegCore.federation.signed_file import read_bytes
from FedSegCore.federation.site.admission import forget_node_id
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import Enrolled, InvitationAccepted
from FedSegCore.federation.site.keys import make_site_key, read_private_key, read_public_key, short_fingerprint
from FedSegCore.federation.site.policy import SitePolicy
from FedSegCore.federation.site.status import is_running
from FedSegCore.models.signing import same_fingerprint


@dataclass(frozen=True)
class Joined:
    """What came of joining.

    Attributes:
        folder: the site.
        request_file: what to send to the coordinator.
        fingerprint: of the site's key, to be read out to the coordinator.
        invitation: what was accepted; its ``fingerprint`` is the coordinator's, to be compared.
        compared: whether it was compared already.
        again: the site was there before and has taken a newer invitation of its coordinator.
    """

    folder: SiteFolder
    request_file: Path
    fingerprint: str
    invitation: Invitation
    compared: bool
    again: bool


@dataclass(frozen=True)
class NewSite:
    """What a new site is set up with; one that is there already keeps what it has.

    Attributes:
        cohort: a cohort file; None: the site's own store, filled with 'fedseg site cohort'.
        policy: the federation's rules never change it, both hold in every round; None: the usual one.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``; None: ``"auto"``.
    """

    cohort: Path | None = None
    policy: SitePolicy | None = None
    device: str | None = None


def join(
    path: Path,
    invitation_file: Path,
    name: str,
    new: NewSite | None = None,
    *,
    address: str | None = None,
    coordinator_fingerprint: str | None = None,
    new_key: bool = False,
    now: dt.datetime | None = None,
) -> Joined:
    """Make a site of an invitation; where one is already, take a newer invitation of the same coordinator.

    Args:
        path: the site's folder.
        invitation_file: the file that the coordinator sent.
        name: the site's name in the federation.
        new: what a new site is set up with.
        address: which of the invitation's addresses to use; the first by default.
        coordinator_fingerprint: as heard by telephone; None: it is not compared.
        new_key: give a site that was shut out a new key; a key is admitted once only.
        now: the machine's time by default.

    Raises:
        BadInputError: ``invitation.*``; ``invitation.other-coordinator``: the fingerprint differs.
        UsageError: ``site.exists``, ``site.settings``, ``site.address``; ``site.set-up``: ``new``, and it is there.
        CannotDoHereError: the folder cannot be made private.
    """
    invitation = read_invitation(invitation_file, now)
    compared = _compare(invitation, coordinator_fingerprint)
    site = SiteFolder(path.absolute())
    again = site.settings_file.exists()
    new = new or NewSite()
    settings = _settings(site, invitation, name, new, address)
    content = read_bytes(invitation_file)
    _keep_invitation(site, invitation, content)
    if again:
        _take_newer(site, settings, new_key)
    else:
        SiteFolder.create(site.path, settings, site.authority_certificate, new.policy)
    _journal(site, invitation, content, compared)
    fingerprint = _write_request(site, invitation)
    return Joined(site, site.request_file, fingerprint, invitation, compared, again)


def _keep_invitation(site: SiteFolder, invitation: Invitation, content: bytes) -> None:
    private_folder(site.path)
    write_private(site.invitation_file, content)
    write_private(site.authority_certificate, invitation.authority_certificate.encode("utf-8"))


def _journal(site: SiteFolder, invitation: Invitation, content: bytes, compared: bool) -> None:
    coordinator_key = bytes.fromhex(invitation.coordinator_public_key)
    site.journal.append(
        InvitationAccepted(
            invitation_sha256=hashlib.sha256(content).hexdigest(),
            coordinator_key_sha256=hashlib.sha256(coordinator_key).hexdigest(),
            compared=compared,
        )
    )


def _write_request(site: SiteFolder, invitation: Invitation) -> str:
    """Write the request to the coordinator and return the fingerprint of the site's key."""
    key = read_private_key(site.private_key)
    write_request(make_request(site.settings().name, invitation, key), key, site.request_file, private=True)
    return short_fingerprint(read_public_key(site.public_key))


def _compare(invitation: Invitation, told: str | None) -> bool:
    if told is None:
        return False
    if not same_fingerprint(told, invitation.fingerprint):
        raise BadInputError(
            "invitation.other-coordinator",
            f"The invitation was signed by {invitation.fingerprint}, and the coordinator told you something else.",
            "Do not join with this file: ask the coordinator to send it another way, and compare again.",
        )
    return True


def _known(site: SiteFolder, invitation: Invitation, name: str) -> str:
    """Return the address that the site there uses; raises where it has nothing to do with this invitation."""
    before, settings = site.invitation(), site.settings()
    if before is None or before.coordinator_public_key != invitation.coordinator_public_key or settings.name != name:
        raise UsageError(
            "site.exists",
            "This folder holds a site of another name or federation already.",
            "Choose another folder, or give that site's name and an invitation of its own coordinator.",
        )
    if invitation.made < before.made:
        raise BadInputError(
            "invitation.older",
            "The site has a newer invitation of this coordinator already.",
            "Use the newest invitation.",
        )
    return settings.coordinator


def _address(invitation: Invitation, wanted: str | None, known: str) -> str:
    if wanted is not None and wanted not in invitation.addresses:
        raise UsageError(
            "site.address",
            f"{wanted} is none of the coordinator's addresses.",
            f"Choose one of {', '.join(invitation.addresses)}.",
        )
    return wanted or (known if known in invitation.addresses else invitation.addresses[0])


def _settings(site: SiteFolder, invitation: Invitation, name: str, new: NewSite, address: str | None) -> SiteSettings:
    """Return the settings of the new site, or of the one that is there with the address that it shall use now."""
    if site.settings_file.exists():
        known = _known(site, invitation, name)
        if new != NewSite():
            raise UsageError(
                "site.set-up",
                "This site is set up already: its cases, policy and device stay as they are.",
                "Leave out cohort, least number of cases and device: change them as those of a site that is there.",
            )
        given = {**site.settings().model_dump(), "coordinator": _address(invitation, address, known)}
    else:
        given = {"name": name, "coordinator": _address(invitation, address, ""), "device": new.device or "auto"}
        if new.cohort is not None:
            given["cohort"] = new.cohort.absolute()
    try:
        return SiteSettings.model_validate(given)
    except ValidationError as error:
        wrong = problems_of(error)
        raise UsageError("site.settings", f"This is not possible: {wrong}.", "Correct the named entries.") from error


def _take_newer(site: SiteFolder, settings: SiteSettings, new_key: bool) -> None:
    if new_key:
        make_site_key(site.private_key, site.public_key)
        forget_node_id(site)
        if not is_running(site):
            site.status_file.unlink(missing_ok=True)  # it tells how the former key fared
        key, authority = sha256_of(site.public_key), sha256_of(site.authority_certificate)
        site.journal.append(Enrolled(key_sha256=key, authority_sha256=authority))
    site.keep_settings(settings)


def federation_words(invitation: Invitation, policy: SitePolicy) -> list[str]:
    """Return what a federation asks for, in sentences: labels, groups, and where it is stricter than ``policy``."""
    words = []
    if invitation.contract is not None:
        words.append(f"Structures: {', '.join(invitation.contract.names)}.")
    if invitation.groups:
        words.append(f"Groups that train one model each: {', '.join(invitation.groups)}.")
    own, both = policy.privacy, policy.privacy.stricter(invitation.privacy)
    for field in type(own).model_fields:
        before, after = getattr(own, field), getattr(both, field)
        if before != after:
            words.append(
                f"The federation is stricter than your policy: {field} {_word(after)} instead of {_word(before)}."
            )
    return words


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value}"
