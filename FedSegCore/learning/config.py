"""How a site trains in one round."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

BY_VALIDATION = ("fedgin_plateau",)
"""Schedules that go by what a site's validation gave."""


class FedGsConfig(BaseModel):
    """FedGS (DeCaF 2024; METHODS §4): small lesions weigh more in the accumulated update.

    Attributes:
        labels: names of the labels that make up the lesion; empty means all labels of the contract together.
        log_base: l of δ = tanh((log_l(A/a))²); None takes τ.
        threshold: τ, an image counts as small where A/a ≥ τ; None chooses from the lesion sizes of all sites of the
            group, as the sites tell them in their first answer (in which each goes by its own).
        normalise: divide the accumulated update by its mean η, so that only the direction changes.
        constant_eta: the ablation: every step weighs the same mean η.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = ()
    log_base: Annotated[float, Field(gt=1.0)] | None = None
    threshold: Annotated[float, Field(gt=1.0)] | None = None
    normalise: bool = False
    constant_eta: bool = False


class OversamplingConfig(BaseModel):
    """Images with a small lesion are drawn more often: the local alternative to FedGS.

    Attributes:
        times: how often such an image comes for once of any other.
        labels: names of the labels that make up the lesion; empty means all labels of the contract together.
        threshold: an image counts where A/a reaches this; None chooses from the site's own sizes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    times: Annotated[int, Field(ge=1, le=100)] = 3
    labels: tuple[str, ...] = ()
    threshold: Annotated[float, Field(gt=1.0)] | None = None


class TrainingConfig(BaseModel):
    """One site's work in a round. The site checks these bounds on whatever the server sends.

    Attributes:
        loss: a name known to ``FedSegCore.learning.losses``.
        loss_options: that loss's own parameters (``{"dice_share": 0.3}`` for ``"flames"``), checked when it is built.
        optimiser: AdamW; its state starts anew every round (it would describe another model).
        learning_rate: AdamW's step size in round 1.
        schedule: how it goes on, a name known to ``FedSegCore.learning.schedules``.
        final_learning_rate: reached in the last round under ``"cosine"``, along a half cosine over the rounds.
        weight_decay: AdamW's decay.
        warm_up_steps: steps (at most a quarter of the round's) over which the rate rises from 0. A fresh optimiser
            knows no scale yet: its first full steps would undo part of what the average gained.
        batch_size: images (2-D) or patches (3-D) a step.
        steps_per_round: optimiser steps a round; None means one epoch over the cohort's images.
        epochs: epochs a round where ``steps_per_round`` is None.
        patch_size: (k, j, i) voxels in 3-D, (1, j, i) in 2-D, both after preprocessing.
        foreground_fraction: share of patches centred on foreground (balanced over the labels present).
        stratified: instead, every batch holds images with and without a label: at least one of each, and on average
            as many as the cohort does. Needs ``foreground_fraction`` 0.
        oversampling: draw images with small lesions more often.
        gradient_clip: largest gradient norm; None does not clip.
        fedgs: weigh small lesions in the update sent.
        proximal: FedProx's μ; 0 is off.
        validate_received: score the received model on the site's validation cases before training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] = "dice_ce"
    loss_options: dict[str, Any] = {}
    optimiser: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    schedule: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] = "cosine"
    final_learning_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4
    warm_up_steps: Annotated[int, Field(ge=0, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=256)] = 2
    steps_per_round: Annotated[int, Field(ge=1, le=100_000)] | None = None
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    patch_size: tuple[
        Annotated[int, Field(ge=1, le=512)], Annotated[int, Field(ge=8, le=1024)], Annotated[int, Field(ge=8, le=1024)]
    ] = (64, 96, 96)
    foreground_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    stratified: bool = False
    oversampling: OversamplingConfig | None = None
    gradient_clip: Annotated[float, Field(gt=0.0)] | None = 12.0
    fedgs: FedGsConfig | None = None
    proximal: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    validate_received: bool = True

    @model_validator(mode="after")
    def _one_way_of_drawing(self) -> Self:
        if self.stratified and (self.foreground_fraction > 0.0 or self.oversampling is not None):
            raise ValueError("stratified batches need foreground_fraction = 0 and no oversampling")
        return self

    @model_validator(mode="after")
    def _validation_for_the_schedule(self) -> Self:
        if self.schedule in BY_VALIDATION and not self.validate_received:
            raise ValueError(f"the schedule {self.schedule} goes by validation: it needs validate_received")
        return self
