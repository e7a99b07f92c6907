"""From a coordinator's run to signed releases in the coordinator's folder."""

from pathlib import Path

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import write_text
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.follow import checked_run_name
from FedSegCore.federation.delivery import PLAN_FILE, DeliveryPlan
from FedSegCore.federation.events import EVENTS_FILE, read_events
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.federation.release_messages import MOST_OFFERS
from FedSegCore.models.release import Release, list_releases
from FedSegCore.models.signing import load_or_make_key, public_key_of


def publish_run(folder: CoordinatorFolder, name: str) -> dict[str, Path]:
    """Publish every group's model of the run called ``name`` below ``folder.releases``; return group -> release folder.

    Raises:
        UsageError: ``run.name``.
        BadInputError: ``federation.no-run``, ``release.nothing-to-publish``.
    """
    outcome = FederationOutcome.load(folder.runs / checked_run_name(name))
    return publish_outcome(outcome, folder.releases, load_or_make_key(folder.release_key))


def plan_delivery(folder: CoordinatorFolder, run: str) -> DeliveryPlan:
    """Write down, in the folder of ``run``, that the newest release of every name shall go to all admitted sites.

    Raises:
        UsageError: ``run.name``.
        BadInputError: ``federation.no-run``; ``release.none``: nothing was published yet.
    """
    run_folder = folder.runs / checked_run_name(run)
    if not run_folder.is_dir():
        raise BadInputError("federation.no-run", f"There is no run {run}.", "List the runs.")
    own = {public_key_of(load_or_make_key(folder.release_key))}
    newest: dict[str, Release] = {}
    for release in list_releases(folder.releases, trusted=own):
        newest.setdefault(release.card.name, release)
    if not newest:
        raise BadInputError("release.none", "There is no release yet.", "Publish a run's models first.")
    ids = tuple(release.id for release in list(newest.values())[:MOST_OFFERS])
    plan = DeliveryPlan(releases=folder.releases, ids=ids, sites=tuple(site.name for site in folder.sites()))
    write_text(run_folder / PLAN_FILE, plan.model_dump_json(indent=2) + "\n", private=True)
    return plan


def delivered(folder: CoordinatorFolder, run: str, since: float) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return what came of deliveries of ``run`` since then: site → releases it received, site → code of why not."""
    since = round(since, 3)  # as events tell it
    received: dict[str, list[str]] = {}
    declined: dict[str, str] = {}
    for event in read_events(folder.runs / checked_run_name(run) / EVENTS_FILE):
        if event.get("event") == "release-delivered" and event["time"] >= since:
            received.setdefault(str(event["site"]), []).append(str(event["release"]))
        elif event.get("event") == "release-declined" and event["time"] >= since:
            declined[str(event["site"])] = str(event["code"])
    return received, declined


def release_of(folder: CoordinatorFolder, wanted: str) -> Release:
    """Return the coordinator's own release called ``wanted``: an id, or a name for its newest version.

    Raises:
        BadInputError: ``release.none``, or why the release of that id cannot be used.
    """
    broken: dict[str, BadInputError] = {}
    own = {public_key_of(load_or_make_key(folder.release_key))}
    releases = list_releases(folder.releases, trusted=own, report=broken.__setitem__)
    if wanted in broken:
        raise broken[wanted]
    for release in releases:
        if wanted in (release.id, release.card.name):
            return release
    there = ", ".join(release.id for release in releases) or "none yet"
    raise BadInputError("release.none", f"There is no release {wanted} here.", f"Releases: {there}.")
