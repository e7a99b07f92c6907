"""How an image becomes a network's input; part of every federation and of every release."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from FedSegCore.common.names import no_device

Spacing = Annotated[float, Field(gt=0.0, le=100.0)]


class Preprocessing(BaseModel):
    """Geometry and intensities of a network's input for one modality.

    Attributes:
        modality: DICOM modality code.
        spacing: target mm along (i, j, k) of the LPS-oriented image; None keeps that axis as it is.
        in_plane_size: (j, i) pixels that every slice is padded to a square and resized to, instead of an in-plane
            spacing; for images whose pixel size is unknown (photographs, screen captures of ultrasound).
        window: HU window (low, high) mapped to [0, 1] and clipped; for CT.
        percentiles: robust percentiles (low, high) of the whole image mapped to [0, 1] and clipped; for MR, US.
        channels: channels of the network's input (1 grey, 3 colour).
        standardise: bring every network input (a slice in 2-D, a patch or tile in 3-D) to zero mean and unit variance
            after augmentation, the same at training and inference, so that GIN is never the last word on intensities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$"), AfterValidator(no_device)]
    spacing: tuple[Spacing | None, Spacing | None, Spacing | None] = (None, None, None)
    in_plane_size: tuple[Annotated[int, Field(ge=16, le=2048)], Annotated[int, Field(ge=16, le=2048)]] | None = None
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    channels: Literal[1, 3] = 1
    standardise: bool = True

    @model_validator(mode="after")
    def _one_normalisation(self) -> Self:
        if (self.window is None) == (self.percentiles is None):
            raise ValueError("give either a window (CT) or percentiles (MR, US), not both or neither")
        low, high = self.window or self.percentiles or (0.0, 1.0)
        if not low < high:
            raise ValueError("the lower bound must be below the upper bound")
        if self.percentiles is not None and not (low >= 0.0 and high <= 100.0):
            raise ValueError("percentiles lie between 0 and 100")
        if self.in_plane_size is not None and self.spacing[:2] != (None, None):
            raise ValueError("give either in_plane_size or an in-plane spacing")
        return self


DEFAULT_PREPROCESSING = {
    "CT": Preprocessing(modality="CT", spacing=(1.5, 1.5, 2.0), window=(-160.0, 240.0)),
    "MR": Preprocessing(modality="MR", spacing=(1.5, 1.5, None), percentiles=(0.5, 99.5)),
    "US": Preprocessing(modality="US", in_plane_size=(256, 256), percentiles=(0.5, 99.5)),
    "ES": Preprocessing(modality="ES", in_plane_size=(256, 256), percentiles=(0.0, 100.0), channels=3),
}
"""What a federation uses for a modality it says nothing about."""
