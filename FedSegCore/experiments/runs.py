"""One setting with one seed: which federations it is made of, and where their models are found afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from FedSegCore.experiments.config import ExperimentConfig, Setting
from FedSegCore.federation.config import FederationConfig
from FedSegCore.learning.cohort import Cohort


@dataclass(frozen=True)
class CohortSite:
    """A site's prepared images."""

    name: str
    modality: str
    cohort: Cohort


def training_sites(experiment: ExperimentConfig, setting: str, sites: Sequence[CohortSite]) -> list[CohortSite]:
    """Return the sites that train under ``setting``, each with as many patients as it may use."""
    names, limits = experiment.trained_sites(setting), experiment.settings[setting].training_patients
    return [
        replace(site, cohort=_limited(site.cohort, limits[site.name])) if site.name in limits else site
        for site in sites
        if site.name in names
    ]


def federations_of(
    setting: Setting, config: FederationConfig, sites: Sequence[CohortSite]
) -> dict[str, Mapping[str, CohortSite]]:
    """Return the federations of a setting: name → (site name in the federation → its images).

    Federated is one federation of all sites; local is one federation of one site each; pooled is one federation per
    group whose only site holds the images of all, each prepared as its own modality is. So every setting runs through
    the same server and client apps.
    """
    if setting.pooling == "local":
        return {site.name: {site.name: site} for site in sites}
    if setting.pooling == "pooled":
        return {name: {name: site} for name, site in _pooled(config, sites).items()}
    return {"federation": {site.name: site for site in sites}}


def federation_and_member(setting: Setting, site: CohortSite, group: str) -> tuple[str, str]:
    """Return (federation, site name in it) whose model of ``group`` serves ``site`` under ``setting``."""
    if setting.pooling == "local":
        return site.name, site.name
    if setting.pooling == "pooled":
        return _pooled_name(group), _pooled_name(group)
    return "federation", site.name


def with_more_steps(config: FederationConfig, times: int) -> FederationConfig:
    """Return ``config`` with ``times`` as many steps a round; a round of whole epochs is left alone."""
    steps = config.training.steps_per_round
    if steps is None:
        return config
    return config.model_copy(update={"training": config.training.model_copy(update={"steps_per_round": times * steps})})


def _pooled_name(group: str) -> str:
    return f"pooled-{group.lower()}"


def _pooled(config: FederationConfig, sites: Sequence[CohortSite]) -> dict[str, CohortSite]:
    groups: dict[str, list[CohortSite]] = {}
    for site in sites:
        groups.setdefault(config.group_of(site.modality), []).append(site)
    return {
        _pooled_name(group): CohortSite(
            _pooled_name(group), members[0].modality, Cohort.pooled([_told_apart(site) for site in members])
        )
        for group, members in groups.items()
    }


def _told_apart(site: CohortSite) -> Cohort:
    """Return a site's cohort with its patients under the site's name: two data sets may name theirs alike."""
    training, validation = (
        tuple(replace(case, patient=f"{site.name}/{case.patient}") for case in part)
        for part in (site.cohort.training, site.cohort.validation)
    )
    return Cohort(training, validation, site.cohort.set_aside)


def _limited(cohort: Cohort, patients: int) -> Cohort:
    """Return ``cohort`` with the training cases of its first patients only."""
    kept = list(dict.fromkeys(case.patient for case in cohort.training))[:patients]
    return replace(cohort, training=tuple(case for case in cohort.training if case.patient in kept))
