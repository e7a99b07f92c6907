"""What a federation or a site says of augmentation."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


SHIPPED_PROBABILITY = 0.5
"""Share of the images that GIN changes where nobody chose: on every image it costs Dice where it was trained."""


class GinConfig(BaseModel):
    """GIN (Ouyang et al., IEEE TMI 2023; METHODS §1): what is drawn, and how often.

    Attributes:
        probability: chance that an image is augmented at all; 1, the papers', where nothing is said.
        layers: convolution layers L.
        hidden_channels: channels between the layers.
        kernel_sizes: odd kernel sides drawn from, uniformly, per layer.
        alpha: range of the blend weight α ~ U(low, high); 0 leaves the image, 1 replaces it.
        per_batch: one network for the whole batch (FedGIN's released code) instead of one per image (the paper).
        ipa: blend two GIN outputs by a smooth random map and add the consistency loss (same paper).
        ipa_weight: weight of the consistency loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Probability = 1.0
    layers: Annotated[int, Field(ge=2, le=8)] = 4
    hidden_channels: Annotated[int, Field(ge=1, le=16)] = 2
    kernel_sizes: Annotated[tuple[int, ...], Field(min_length=1, max_length=4)] = (1, 3)
    alpha: tuple[Probability, Probability] = (0.0, 1.0)
    per_batch: bool = False
    ipa: bool = False
    ipa_weight: Annotated[float, Field(ge=0.0, le=100.0)] = 10.0

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if any(size % 2 == 0 or not 1 <= size <= 9 for size in self.kernel_sizes):
            raise ValueError("kernel sizes are odd and at most 9")
        if self.alpha[0] > self.alpha[1]:
            raise ValueError("alpha is a range (low, high)")
        return self


class SpatialConfig(BaseModel):
    """Random flips, rotation, zoom, stretch, shift and elastic deformation.

    Attributes:
        probability: chance of the affine change per image.
        rotation_degrees: rotation drawn from ± this, about k in 2-D and about all axes in 3-D.
        scaling: zoom drawn from 1 ± this.
        stretching: further zoom of each axis by itself, drawn from 1 ± this.
        shift_fraction: shift drawn from ± this fraction of the side.
        flip_axes: axes that may be flipped, of "k", "j", "i"; none by default, since left and right matter.
        elastic: chance of an elastic deformation per image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Probability = 0.8
    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    scaling: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15
    stretching: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    shift_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.06
    flip_axes: tuple[Literal["k", "j", "i"], ...] = ()
    elastic: Probability = 0.0


class AugmentationConfig(BaseModel):
    """None, spatial, GIN, or both; spatial comes first, GIN after, standardisation last.

    Attributes:
        spatial: None: no spatial change.
        gin: None: no GIN. A federation that says nothing of it augments half of the images; one that writes a table
            says how often, else every image.
        site_gin: sites may train with strength, layers and kernels of GIN that they chose themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spatial: SpatialConfig | None = SpatialConfig()
    gin: GinConfig | None = GinConfig(probability=SHIPPED_PROBABILITY)
    site_gin: bool = True
