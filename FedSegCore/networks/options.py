"""What every network's options share: strictness, and the choice of normalisation."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

NormKind = Literal["instance", "group", "batch"]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]


class NetworkOptions(BaseModel):
    """Base of all options: unknown ones are refused.

    Attributes:
        norm: ``"instance"`` or ``"group"`` (no state besides the weights, so nothing of a site's intensities is
            averaged into another's), or ``"batch"``, for which aggregation must be told a policy (share | keep local).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    norm: NormKind = "instance"


def monai_norm(kind: NormKind, groups: int = 8) -> tuple[str, dict[str, Any]]:
    """Return MONAI's way of saying ``kind``, always with trained scale and shift."""
    if kind == "group":
        return "group", {"num_groups": groups, "affine": True}
    return kind, {"affine": True}


def norm_layer_2d(kind: NormKind, channels: int, groups: int = 8) -> torch.nn.Module:
    """Return a normalisation of (N, ``channels``, j, i) with trained scale and shift: 2 · ``channels`` parameters."""
    if kind == "group":
        return torch.nn.GroupNorm(groups, channels)
    layer = torch.nn.BatchNorm2d if kind == "batch" else torch.nn.InstanceNorm2d
    return layer(channels, affine=True)
