"""Which network, by name, and how big."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class NetworkConfig(BaseModel):
    """A network by name; everything needed to build it again from a release.

    Attributes:
        name: a name known to ``FedSegCore.networks.registry`` (``"unet"`` …).
        dimensions: 3 for volumes, 2 for slices (axial (j, i) slices of the LPS-oriented image).
        in_channels: channels of the image.
        out_channels: background + labels of the contract.
        options: keyword arguments of that network (``{"channels": [16, 32, 64]}``), checked by the registry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] = "unet"
    dimensions: Literal[2, 3] = 3
    in_channels: Annotated[int, Field(ge=1, le=16)] = 1
    out_channels: Annotated[int, Field(ge=2, le=256)] = 2
    options: dict[str, Any] = {}
