"""The model card: what a release is, what it was made from, and how well it does."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]


class LabelScore(BaseModel):
    """A label's validation score over the cases of all sites (mean and spread over cases)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    metric: Literal["dice", "iou", "surface_distance_mm"] = "dice"
    mean: float
    standard_deviation: float
    cases: Annotated[int, Field(ge=1)]


class SiteSummary(BaseModel):
    """A site as the card names it: a number of cases, no name of hospital or patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    modality: str
    training_cases: Annotated[int, Field(ge=0)]
    rounds_answered: Annotated[int, Field(ge=0)]


class ModelCard(BaseModel):
    """Everything a person or a program needs to know of a release before using it.

    Attributes:
        format_version: version of this schema.
        name: release name without version (``"demo-CT"``).
        version: increasing integer; the newest is the highest.
        modalities: modalities this model segments, with the preprocessing of each under the same key.
        contract: its labels.
        network: how to build the network.
        patch_size: (k, j, i) voxels of a tile at inference.
        federation: name of the federation.
        rule: the aggregation rule.
        rounds: rounds it was trained for.
        created: when, UTC.
        sites: who took part.
        scores: per-label scores; empty if no site had validation cases.
        software: package → version.
        weights_sha256: of ``weights.safetensors``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: Name
    version: Annotated[int, Field(ge=1)]
    modalities: dict[str, Preprocessing]
    contract: LabelContract
    network: NetworkConfig
    patch_size: tuple[int, int, int]
    federation: Name
    rule: str
    rounds: Annotated[int, Field(ge=0)]
    created: datetime
    sites: tuple[SiteSummary, ...] = ()
    scores: tuple[LabelScore, ...] = ()
    software: dict[str, str] = {}
    weights_sha256: Sha256
