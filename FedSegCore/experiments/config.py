"""An experiment in one file: whose images, which settings, how much of it, how often."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.names import no_device
from FedSegCore.common.toml_file import check_toml, load_toml
from FedSegCore.experiments.crossing import crossed, merged
from FedSegCore.experiments.participation import SiteParticipation
from FedSegCore.experiments.targets import Target
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.config_checks import check_federation, check_parts
from FedSegCore.volumes.labels import LabelContract

# runs lie in folders of these names
SettingName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$"), AfterValidator(no_device)]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$"), AfterValidator(no_device)]


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


class ExperimentSite(BaseModel):
    """One site of an experiment: patients of one data set.

    Attributes:
        name: the site's name in tables.
        modality: DICOM modality code.
        dataset: folder of the data set below the data root; its ``manifest.csv`` names cases and patients.
        patients: (first, last) patients of the sorted manifest, 0-based, last not included.
        patient_pattern: regular expression whose match at the beginning of the manifest's patient is the patient, where
            one patient's images are listed as several; None: as listed.
        source_sites: only rows of these entries of the manifest's site column; all if empty.
        mapping: federation label name → the data set's numbers, or ``"not annotated"``.
        test_patients: the last so many patients are kept for testing and never trained on.
        validation_patients: the so many before them score the model every round (for curves, never for choices).
        rescale: (slope, intercept) that bring stored values back to physical ones (8-bit CT to HU).
        channel: the only channel of a colour picture that is read (pictures that hold one intensity window each).
        skip_empty: leave out images in which nothing of ``mapping`` occurs.
        trains: whether it trains where a setting does not say who does; a site that does not is only tested.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    modality: str
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    patients: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
    patient_pattern: Annotated[str, AfterValidator(_expression)] | None = None
    source_sites: tuple[str, ...] = ()
    mapping: dict[str, tuple[int, ...] | str]
    test_patients: Annotated[int, Field(ge=1)] = 2
    validation_patients: Annotated[int, Field(ge=0)] = 0
    rescale: tuple[float, float] = (1.0, 0.0)
    channel: Annotated[int, Field(ge=0, le=2)] | None = None
    skip_empty: bool = False
    trains: bool = True


class Setting(BaseModel):
    """One row of the comparison: how the sites meet, and what differs from the base federation.

    Attributes:
        title: what tables and plots call it.
        pooling: ``"federated"``: sites train apart and meet at the server; ``"local"``: every site alone;
            ``"pooled"``: all images of a modality in one place, or of all modalities where the federation's grouping
            is ``"together"``, which a federation tries to equal.
        steps_of_all: a pooled site takes as many steps a round as its sites take together.
        federation: entries that replace those of the base federation (tables are merged).
        train: names of the sites that train; the others are only tested. Empty: all whose ``trains`` says so.
        test: names of the sites that are tested; empty: all.
        training_patients: site → at most so many of its training patients are used (the first after rotation).
        participation: who is missing when.
        serve: modality → the group whose model serves sites of a modality that nobody trains. Sites without a model
            (a site that does not train, where every site trains alone) are not tested.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    pooling: Literal["federated", "local", "pooled"] = "federated"
    steps_of_all: bool = False
    federation: dict[str, Any] = {}
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    training_patients: dict[str, Annotated[int, Field(ge=1)]] = {}
    participation: SiteParticipation = SiteParticipation()
    serve: dict[str, str] = {}


class ExperimentConfig(BaseModel):
    """A whole experiment.

    Attributes:
        name: short name; releases are called after it.
        title: headline of the report.
        question: what it is meant to settle, in a sentence or two.
        data_root: folder of the data sets, relative to the experiment file.
        seeds: one run of every setting per seed; initial weights, draws and orders follow from it.
        default: the setting whose models are published as releases.
        reference: the setting that paired differences are taken against.
        references: modality → that setting there, where ``reference`` is not tested on it.
        target: mean test Dice that ``default`` is expected to reach, by modality.
        targets: further goals, between settings.
        notes: where and why it differs from the paper it looks into; shown with the results.
        findings: what was looked into where a target was not reached; shown with the results.
        rotate: every seed tests other patients: all of a site's patients move on by as many as it tests.
        surface_distances: measure them too; on large volumes they take longer than the segmentation.
        pixel_accuracy: put it in the rows; never shown alone (METHODS §3).
        small_lesions: modality → τ; rows say which lesions are small (A/a ≥ τ of the whole image) and which are not.
        rounds_needed: share of the reference setting's last validation Dice; how soon each run reaches it is told.
        sites: the sites.
        settings: the rows of the comparison, by name. In a file they may also come from ``axes`` and ``cross``
            (``experiments.crossing``).
        federation: the base federation.
        budgets: entries that replace those of the base federation, by budget (``quick``, ``full``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SettingName
    title: str
    question: str
    data_root: str = "../../shared/data"
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    default: SettingName
    reference: SettingName
    references: dict[str, SettingName] = {}
    target: dict[str, float] = {}
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    rotate: bool = False
    surface_distances: bool = True
    pixel_accuracy: bool = False
    small_lesions: dict[str, Annotated[float, Field(gt=1.0)]] = {}
    rounds_needed: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    sites: Annotated[tuple[ExperimentSite, ...], Field(min_length=1)]
    settings: Annotated[dict[SettingName, Setting], Field(min_length=1)]
    federation: dict[str, Any]
    budgets: dict[str, dict[str, Any]] = {"quick": {}}

    @model_validator(mode="before")
    @classmethod
    def _cross(cls, raw: Any) -> Any:
        return crossed(raw) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = [("default", self.default), ("reference", self.reference)]
        named += [(f"references.{modality}", setting) for modality, setting in self.references.items()]
        for role, setting in named:
            if setting not in self.settings:
                raise ValueError(f"{role} names the setting {setting!r}, which there is not")
        if len({site.name for site in self.sites}) != len(self.sites):
            raise ValueError("site names must differ")
        self._check_names_in_settings()
        for budget in self.budgets:
            for setting in self.settings:
                self.federation_of(setting, budget, self.seeds[0])
        return self

    def _check_names_in_settings(self) -> None:
        known = {site.name for site in self.sites}
        for name, chosen in self.settings.items():
            named = {*chosen.train, *chosen.test, *chosen.training_patients}
            if unknown := sorted((named | chosen.participation.sites()) - known):
                raise ValueError(f"settings.{name} names the site {unknown[0]!r}, which there is not")
            if not self.trained_sites(name):
                raise ValueError(f"settings.{name}: nobody trains")
        for goal in self.targets:
            if unknown := sorted({goal.setting, *goal.against} - self.settings.keys()):
                raise ValueError(f"a target names the setting {unknown[0]!r}, which there is not")

    def reference_of(self, modality: str) -> str:
        """Return the setting that paired differences on images of ``modality`` are taken against."""
        return self.references.get(modality, self.reference)

    def contract(self) -> LabelContract:
        """Return the labels, which all settings share."""
        return self.federation_of(self.default, next(iter(self.budgets)), self.seeds[0]).contract

    def trained_sites(self, setting: str) -> frozenset[str]:
        """Return the names of the sites that train under ``setting``."""
        return frozenset(self.settings[setting].train or (site.name for site in self.sites if site.trains))

    def tested_sites(self, setting: str) -> frozenset[str]:
        """Return the names of the sites that are tested under ``setting``."""
        return frozenset(self.settings[setting].test or (site.name for site in self.sites))

    def federation_of(self, setting: str, budget: str, seed: int) -> FederationConfig:
        """Return the federation of one run; raises pydantic.ValidationError where the merged entries do not fit."""
        entries = merged(merged(self.federation, self.budgets[budget]), self.settings[setting].federation)
        return FederationConfig.model_validate(entries | {"name": self.name, "seed": seed})


def read_experiment(path: Path) -> ExperimentConfig:
    """Read and check an experiment's TOML file, and everything its federations are made of.

    ``base = "other.toml"`` names a file beside it whose entries hold where this one says nothing; tables are merged,
    lists replaced. What was found out in the base's runs is not said of this one's.

    Raises:
        BadInputError: as ``common.toml_file.read_toml``; ``experiment.base``: the base has a base itself;
            ``federation.*``, ``network.*`` …: a setting's federation does not fit together.
    """
    raw = load_toml(path, "experiment")
    if isinstance(base := raw.pop("base", None), str):
        other = load_toml(path.parent / Path(base).name, "experiment")
        if "base" in other:
            raise BadInputError(
                "experiment.base", f"The base of {path.name} has a base itself.", "Name the first one as the base."
            )
        other.pop("findings", None)
        raw = merged(other, raw)
    config = check_toml(raw, path, ExperimentConfig, "experiment")
    for budget in config.budgets:
        for setting in config.settings:
            federation = config.federation_of(setting, budget, config.seeds[0])
            check_federation(federation)
            check_parts(federation)
    return config
