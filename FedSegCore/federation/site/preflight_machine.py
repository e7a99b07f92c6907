"""What a site's own computer must have before it takes part: software, app, policy, journal, room, device, cohort."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from FedSegCore import __version__
from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.flower_version import SUPPORTED, require_flower
from FedSegCore.federation.invitation import Invitation
from FedSegCore.federation.site.budget import check_hours, check_room
from FedSegCore.federation.site.cohort_file import read_cohort_file
from FedSegCore.federation.site.control import wanted_device
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Introduced, OrderReceived
from FedSegCore.federation.software import is_newer

_GIB = 1024**3
_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class Needs:
    """What a site needs, and how long the check waits.

    Attributes:
        disk_bytes: free room on the disk of the site's folder.
        memory_bytes: memory that is free now.
        timeout_s: of each attempt to connect.
    """

    disk_bytes: int = 5 * _GIB
    memory_bytes: int = 2 * _GIB
    timeout_s: float = 5.0


def flower_words(folder: SiteFolder) -> str:
    """Check Flower; raises CannotDoHereError ``flower.version``, ``check.other-flower``."""
    require_flower({})
    invitation = folder.invitation()
    if invitation is not None and invitation.flower != SUPPORTED:
        if is_newer(__version__, invitation.software_version):
            return f"Flower {SUPPORTED} is installed. {_older(invitation)}"
        raise CannotDoHereError(
            "check.other-flower",
            f"The federation runs Flower {invitation.flower}, this site {SUPPORTED}.",
            f"Install FedSegSlicer {invitation.software_version}, the coordinator's version.",
        )
    return f"Flower {SUPPORTED} is installed, with all that is needed of it."


def _older(invitation: Invitation) -> str:
    # coordinator and sites are upgraded together, and an invitation tells of the day on which it was made
    return (
        f"The invitation is of the older version {invitation.software_version}: this is right if the coordinator has "
        "been upgraded, too. To check it, ask for a new invitation."
    )


def app_words(folder: SiteFolder) -> str:
    """Check that the federation's app is answered here; raises CannotDoHereError ``check.app``.

    An invitation of an older version than ours says nothing of what the coordinator runs by now.
    """
    ours = bundle_digest(thin_bundle())
    invitation = folder.invitation()
    if invitation is None:
        return f"FedSegSlicer {__version__}, app {ours[:_SHOWN_DIGITS]}…; no invitation says which one is expected."
    expected = invitation.app_sha256
    if expected == ours:
        return f"FedSegSlicer {__version__}, app {ours[:_SHOWN_DIGITS]}…, as the invitation says."
    if folder.approves(expected):
        return f"The federation's app {expected[:_SHOWN_DIGITS]}… is another than ours and approved by this site."
    if is_newer(__version__, invitation.software_version):
        return f"FedSegSlicer {__version__}, app {ours[:_SHOWN_DIGITS]}…. {_older(invitation)}"
    raise CannotDoHereError(
        "check.app",
        f"The federation runs the app {expected[:_SHOWN_DIGITS]}… of FedSegSlicer {invitation.software_version}; this"
        f" is {__version__} with the app {ours[:_SHOWN_DIGITS]}….",
        "Install the coordinator's version, or look at the difference and approve that app on the command line.",
    )


def policy_check_words(folder: SiteFolder) -> str:
    """Read the site's policy; raises BadInputError as ``SiteFolder.policy``."""
    rules = folder.policy().privacy
    return f"The policy can be read; nothing leaves with fewer than {rules.minimum_cases} patients."


def budget_words(folder: SiteFolder) -> str:
    """Look what servers have taken of this computer; raises PolicyError ``policy.hours``, ``policy.disk``."""
    budget = folder.policy().budget
    check_room(folder, budget)
    day, week = check_hours(folder, budget)
    last_day = f"{day:.1f} of {budget.hours_per_day:g} hours in the last 24"
    return f"Servers had {last_day}, {week:.1f} of {budget.hours_per_week:g} in the last 7 days."


def journal_words(folder: SiteFolder) -> str:
    """Check the journal; raises BadInputError ``journal.broken``."""
    checked = folder.journal.verify()
    if not checked.whole:
        raise BadInputError(
            "journal.broken",
            f"{checked.file or 'The journal'}, line {checked.line}: {checked.reason}.",
            "Keep a copy of its folder for whoever must know, then move the folder away: a new journal begins.",
        )
    return f"The journal is whole: {checked.entries} entries."


def disk_words(folder: SiteFolder, needs: Needs) -> str:
    """Measure the free room; raises CannotDoHereError ``check.disk``."""
    free = shutil.disk_usage(folder.path).free
    told = f"{free / _GIB:.1f} GiB are free on the disk of the site's folder"
    if free < needs.disk_bytes:
        raise CannotDoHereError(
            "check.disk",
            f"{told}; {needs.disk_bytes / _GIB:.1f} GiB are needed.",
            "Make room, or move the site's folder to another disk.",
        )
    return f"{told}."


def memory_words(needs: Needs) -> str:
    """Measure the free memory; raises CannotDoHereError ``check.memory``."""
    free = psutil.virtual_memory().available
    told = f"{free / _GIB:.1f} GiB of memory are free"
    if free < needs.memory_bytes:
        raise CannotDoHereError(
            "check.memory",
            f"{told}; {needs.memory_bytes / _GIB:.1f} GiB are needed.",
            "Close other programs, or train at night.",
        )
    return f"{told}."


def device_words(folder: SiteFolder) -> str:
    """Look where the trainer would compute; raises CannotDoHereError ``device.unavailable``."""
    # importing torch takes seconds
    from FedSegCore.inference.devices import choose_device, describe_device

    wanted = wanted_device(folder)
    device = choose_device(wanted)
    asked = "no graphics card can be used" if wanted == "auto" and device.type == "cpu" else f"{wanted} was asked for"
    return f"Trains on: {describe_device(device).partition(':')[0]} ({asked})."


def cohort_words(folder: SiteFolder) -> str:
    """Check the cohort: file, images there, enough patients.

    Raises:
        BadInputError: ``cohort.*``, ``check.cohort-files``, ``check.too-few-patients``.
    """
    cohort = read_cohort_file(folder.cohort)
    base = folder.cohort.parent
    unread = [
        case.case for case in cohort.cases if not (_readable(base / case.image) and _readable(base / case.labels))
    ]
    if unread:
        raise BadInputError(
            "check.cohort-files",
            f"Files of {len(unread)} of {len(cohort.cases)} cases cannot be read ({', '.join(unread[:3])}).",
            "Connect the disk or network folder they are on, look at its rights, or choose the cohort again.",
        )
    patients, minimum = len(cohort.patients("train")), folder.policy().privacy.minimum_cases
    if patients < minimum:
        raise BadInputError(
            "check.too-few-patients",
            f"The cohort has {patients} patients to train on; the site's policy wants {minimum} at least.",
            "Add cases; or lower minimum_cases in the site's policy.json, if the site's rules allow it.",
        )
    counts = f"{cohort.count('train')} cases to train on, {cohort.count('validation')} to score on"
    return f"The {cohort.modality} cohort can be read: {counts}, {patients} patients."


def last_message_words(folder: SiteFolder) -> str:
    """Return when the site last got a message of its federation, which says more than being connected."""
    last = None
    for line in folder.journal.lines():
        if isinstance(line.entry, Introduced | OrderReceived):
            last = line.time
    if last is None:
        return "No message of the federation has come yet."
    return f"The last message came at {last.replace('T', ' ').rstrip('Z')} UTC."


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
