"""One setting with one seed: which federations it is made of, and where their models are found afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from FedSegCore.experiments.config import Setting
from FedSegCore.learning.cohort import Cohort


@dataclass(frozen=True)
class CohortSite:
    """A site's prepared images."""

    name: str
    modality: str
    cohort: Cohort


def federations_of(setting: Setting, sites: Sequence[CohortSite]) -> dict[str, Mapping[str, CohortSite]]:
    """Return the federations of a setting: name → (site name in the federation → its images).

    Federated is one federation of all sites; local is one federation of one site each; pooled is one federation per
    modality whose only site holds the images of all. So every setting runs through the same server and client apps.
    """
    if setting.pooling == "local":
        return {site.name: {site.name: site} for site in sites}
    if setting.pooling == "pooled":
        return {name: {name: site} for name, site in _pooled_by_modality(sites).items()}
    return {"federation": {site.name: site for site in sites}}


def federation_and_member(setting: Setting, site: CohortSite) -> tuple[str, str]:
    """Return (federation, site name in it) whose model serves ``site`` under ``setting``."""
    if setting.pooling == "local":
        return site.name, site.name
    if setting.pooling == "pooled":
        name = _pooled_name(site.modality)
        return name, name
    return "federation", site.name


def _pooled_name(modality: str) -> str:
    return f"pooled-{modality.lower()}"


def _pooled_by_modality(sites: Sequence[CohortSite]) -> dict[str, CohortSite]:
    pooled: dict[str, CohortSite] = {}
    for modality in dict.fromkeys(site.modality for site in sites):
        cohort = Cohort.pooled([site.cohort for site in sites if site.modality == modality])
        pooled[_pooled_name(modality)] = CohortSite(_pooled_name(modality), modality, cohort)
    return pooled
