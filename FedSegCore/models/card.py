"""The model card: what a release is, what it was made from, and how well it does."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from FedSegCore.common.names import Name
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import Label, LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.usual import Usual, check_measures

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PatchEdge = Annotated[int, Field(ge=1, le=1024)]


class LabelScore(BaseModel):
    """A label's validation score over the cases of all sites (mean and spread over cases)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    metric: Literal["dice", "iou", "surface_distance_mm"] = "dice"
    mean: FiniteFloat
    standard_deviation: Annotated[FiniteFloat, Field(ge=0.0)]
    cases: Annotated[int, Field(ge=1)]


class SiteSummary(BaseModel):
    """A site as the card names it: a number of cases, no name of hospital or patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    modality: str
    training_cases: Annotated[int, Field(ge=0)]
    rounds_answered: Annotated[int, Field(ge=0)]


class TrainingUsual(BaseModel):
    """What was usual in the images of one modality that all sites trained on, over patients.

    Attributes:
        look: of ``volumes.usual.image_features``; None where no site told it.
        volumes: label → natural logarithm of the structure's volume in ml, where it is whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    look: Usual | None = None
    volumes: dict[str, Usual] = {}

    @model_validator(mode="after")
    def _right_measures(self) -> Self:
        check_measures(self.look, self.volumes.values())
        return self


class ModelCard(BaseModel):
    """Everything a person or a program needs to know of a release before using it.

    Attributes:
        format_version: version of this schema.
        name: release name without version (``"demo-CT"``).
        version: increasing integer; the newest is the highest.
        modalities: modalities this model segments, with the preprocessing of each under the same key.
        contract: its labels.
        network: how to build the network.
        trained_labels: names of the labels that at least one site annotated; the model gives no others. None: all.
        patch_size: (k, j, i) voxels of a tile at inference.
        federation: name of the federation.
        rule: the aggregation rule.
        rounds: rounds it was trained for.
        created: when, UTC.
        sites: who was asked, also those who gave nothing that was used; see ``training_sites``.
        scores: per-label scores on the sites' own validation cases, of the models as sites received them before the
            last round's training; empty if no site had cases enough to send any.
        own_models: sites had models of their own (FLAMES, local BatchNorm), which is what they scored; this release is
            the model made of them all. Cards made before there was this entry say nothing of it.
        usual: modality → what was usual in training; modalities of which no site told anything are absent, and so is
            the whole in cards made before there was any.
        software: package → version.
        weights_sha256: of ``weights.safetensors``.

    Raises:
        pydantic.ValidationError: also where network, contract and preprocessing do not fit one another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: Name
    version: Annotated[int, Field(ge=1)]
    modalities: Annotated[dict[str, Preprocessing], Field(min_length=1)]
    contract: LabelContract
    network: NetworkConfig
    trained_labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    patch_size: tuple[PatchEdge, PatchEdge, PatchEdge]
    federation: Name
    rule: str
    rounds: Annotated[int, Field(ge=0)]
    created: AwareDatetime
    sites: tuple[SiteSummary, ...] = ()
    scores: tuple[LabelScore, ...] = ()
    own_models: bool = False
    usual: dict[str, TrainingUsual] = {}
    software: dict[str, str] = {}
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for modality, preprocessing in self.modalities.items():
            if preprocessing.modality != modality:
                raise ValueError(f"modalities.{modality} is written for modality {preprocessing.modality}")
            if preprocessing.channels != self.network.in_channels:
                raise ValueError(f"the network does not take the channels of {modality} images")
        if self.network.out_channels != len(self.contract.labels) + 1:
            raise ValueError("the network does not give one channel per label and one for the background")
        if not set(self.trained_labels or ()) <= set(self.contract.names):
            raise ValueError("trained_labels names a label that the contract does not have")
        if not {score.label for score in self.scores} <= set(self.contract.names):
            raise ValueError("scores name a label that the contract does not have")
        if not self.usual.keys() <= self.modalities.keys():
            raise ValueError("usual names a modality that the release does not have")
        if not {label for usual in self.usual.values() for label in usual.volumes} <= set(self.contract.names):
            raise ValueError("usual names a label that the contract does not have")
        return self

    @property
    def training_sites(self) -> tuple[SiteSummary, ...]:
        """The sites whose answers the model was made of; others were asked and gave nothing that was used."""
        return tuple(site for site in self.sites if site.rounds_answered)

    @property
    def given_labels(self) -> tuple[Label, ...]:
        """The labels this model gives, in the contract's order."""
        trained = self.trained_labels or self.contract.names
        return tuple(label for label in self.contract.labels if label.name in trained)
