"""An experiment in one file: whose images, which settings, how much of it, how often."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from FedSegCore.common.toml_file import read_toml
from FedSegCore.federation.config import FederationConfig

SettingName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class ExperimentSite(BaseModel):
    """One site of an experiment: patients of one data set.

    Attributes:
        name: the site's name in tables.
        modality: DICOM modality code.
        dataset: folder of the data set below the data root; its ``manifest.csv`` names cases and patients.
        patients: (first, last) patients of the sorted manifest, 0-based, last not included.
        source_sites: only rows of these entries of the manifest's site column; all if empty.
        mapping: federation label name → the data set's numbers, or ``"not annotated"``.
        test_patients: the last so many patients are kept for testing and never trained on.
        validation_patients: the so many before them score the model every round (for curves, never for choices).
        rescale: (slope, intercept) that bring stored values back to physical ones (8-bit CT to HU).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    modality: str
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    patients: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
    source_sites: tuple[str, ...] = ()
    mapping: dict[str, tuple[int, ...] | str]
    test_patients: Annotated[int, Field(ge=1)] = 2
    validation_patients: Annotated[int, Field(ge=0)] = 0
    rescale: tuple[float, float] = (1.0, 0.0)


class Setting(BaseModel):
    """One row of the comparison: how the sites meet, and what differs from the base federation.

    Attributes:
        title: what tables and plots call it.
        pooling: ``"federated"``: sites train apart and meet at the server; ``"local"``: every site alone;
            ``"pooled"``: all images of a modality in one place, which a federation tries to equal.
        federation: entries that replace those of the base federation (tables are merged).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    pooling: Literal["federated", "local", "pooled"] = "federated"
    federation: dict[str, Any] = {}


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
        target: mean test Dice that ``default`` is expected to reach, by modality.
        sites: the sites.
        settings: the rows of the comparison, by name.
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
    target: dict[str, float] = {}
    sites: Annotated[tuple[ExperimentSite, ...], Field(min_length=1)]
    settings: Annotated[dict[SettingName, Setting], Field(min_length=1)]
    federation: dict[str, Any]
    budgets: dict[str, dict[str, Any]] = {"quick": {}}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for role, setting in (("default", self.default), ("reference", self.reference)):
            if setting not in self.settings:
                raise ValueError(f"{role} names the setting {setting!r}, which there is not")
        if len({site.name for site in self.sites}) != len(self.sites):
            raise ValueError("site names must differ")
        for budget in self.budgets:
            for setting in self.settings:
                self.federation_of(setting, budget, self.seeds[0])
        return self

    def federation_of(self, setting: str, budget: str, seed: int) -> FederationConfig:
        """Return the federation of one run; raises pydantic.ValidationError where the merged entries do not fit."""
        merged = _merged(_merged(self.federation, self.budgets[budget]), self.settings[setting].federation)
        return FederationConfig.model_validate(merged | {"name": self.name, "seed": seed})


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` put in, tables entry by entry."""
    out = dict(base)
    for key, value in changes.items():
        both_tables = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both_tables else value
    return out


def read_experiment(path: Path) -> ExperimentConfig:
    """Read and check an experiment's TOML file; raises BadInputError as ``common.toml_file.read_toml``."""
    return read_toml(path, ExperimentConfig, "experiment")
