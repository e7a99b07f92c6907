"""From a coordinator's run to signed releases in the coordinator's folder."""

from pathlib import Path

from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.follow import checked_run_name
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.models.signing import load_or_make_key


def publish_run(folder: CoordinatorFolder, name: str) -> dict[str, Path]:
    """Publish every group's model of the run called ``name`` below ``folder.releases``; return group -> release folder.

    Raises:
        UsageError: ``run.name``.
        BadInputError: ``federation.no-run``, ``release.nothing-to-publish``.
    """
    outcome = FederationOutcome.load(folder.runs / checked_run_name(name))
    return publish_outcome(outcome, folder.releases, load_or_make_key(folder.release_key))
