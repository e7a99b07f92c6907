"""The releases in a folder, as the module shows them."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress

if TYPE_CHECKING:
    from FedSegCore.models.release import Release


def list_for_people(
    folder: Path, modality: str | None, progress: Progress, trusted: Collection[bytes] | None = None
) -> dict[str, Any]:
    """Return ``releases``, newest first, and ``broken``, those that were refused and why.

    With ``trusted`` (raw public keys) a release of an unknown signer is among the latter.

    Raises:
        BadInputError: ``release.no-folder``, the folder is not there.
    """
    from FedSegCore.models.release import list_releases

    if not folder.is_dir():
        raise BadInputError(
            "release.no-folder",
            "The folder of releases is not there.",
            "Choose the folder in which your federation's releases are kept.",
        )
    progress.update(0.0, "checking the releases")
    broken: list[dict[str, str]] = []

    def report(name: str, error: BadInputError) -> None:
        broken.append({"name": name, "code": error.code, "cause": error.what, "remedy": error.remedy})

    releases = [_row(release) for release in list_releases(folder, modality, trusted, report)]
    progress.update(1.0, "done")
    return {"releases": releases, "broken": broken}


def _row(release: "Release") -> dict[str, Any]:
    card = release.card
    return {
        "id": release.id,
        "name": card.name,
        "version": card.version,
        "modalities": sorted(card.modalities),
        "labels": [label.name for label in card.given_labels],
        "federation": card.federation,
        "rounds": card.rounds,
        "rule": card.rule,
        "sites": len(card.training_sites),
        "training_cases": sum(site.training_cases for site in card.training_sites),
        "created": card.created.isoformat(),
        "signer": release.signer,
        "trusted": release.trusted,
        "own_models": card.own_models or card.rule == "flames",
        "scores": [score.model_dump() for score in card.scores],
    }
