"""What whoever answers for data demands of that which a round tells of it."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from FedSegCore.volumes.usual import CohortUsual, Usual

Metric = Literal["overlap", "surface_distance", "loss", "seconds", "lesion_sizes", "volumes", "look"]
"""``overlap`` is Dice and IoU of every scored case, ``surface_distance`` its mean surface distance; ``lesion_sizes``,
where FedGS asks for it, how many training images have a lesion of which size, to a factor of two; ``volumes`` and
``look`` mean and spread, over patients, of structures' volumes and of the training images' intensities."""

METRICS: tuple[Metric, ...] = get_args(Metric)

Positive = Annotated[float, Field(gt=0.0, le=1e9, allow_inf_nan=False)]


class PrivacyRules(BaseModel):
    """Rules on what a round's answer may hold; a site's own and a federation's are joined by ``stricter``.

    Attributes:
        minimum_cases: patients a site must train on to answer at all, and score on to send scores.
        norm_bound: largest L2 norm of the update (all floating-point tensors less the received ones, and the rule's
            extra tensors), as a multiple of the received model's norm, or of 1 where that is smaller; None: no bound.
        clip_norm: L2 norm the update is scaled down to where it is longer, in the weights' own unit; None: no clipping.
        noise_multiplier: standard deviation of the Gaussian noise added to every value of the update, as a multiple of
            ``clip_norm``; None: no noise.
        delta: δ of the (ε, δ) that is told for the noise.
        epsilon_limit: a round that would raise the running ε above this is not answered; None: no limit.
        metrics: what else may leave beside the counts of examples and steps.
        decimals: places the metrics are rounded to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_cases: Annotated[int, Field(ge=1, le=100_000)] = 1
    norm_bound: Positive | None = None
    clip_norm: Positive | None = None
    noise_multiplier: Annotated[float, Field(ge=0.01, le=1e4, allow_inf_nan=False)] | None = None
    delta: Annotated[float, Field(gt=0.0, le=0.1)] = 1e-5
    epsilon_limit: Positive | None = None
    metrics: tuple[Metric, ...] = METRICS
    decimals: Annotated[int, Field(ge=0, le=6)] = 6

    @model_validator(mode="after")
    def _noise_needs_clipping(self) -> Self:
        if self.noise_multiplier is not None and self.clip_norm is None:
            raise ValueError("noise_multiplier needs a clip_norm")
        if self.epsilon_limit is not None and self.noise_multiplier is None:
            raise ValueError("epsilon_limit needs a noise_multiplier")
        return self

    def stricter(self, other: "PrivacyRules") -> "PrivacyRules":
        """Return the rules that hold where both do."""
        return PrivacyRules(
            minimum_cases=max(self.minimum_cases, other.minimum_cases),
            norm_bound=_smaller(self.norm_bound, other.norm_bound),
            clip_norm=_smaller(self.clip_norm, other.clip_norm),
            noise_multiplier=max(filter(None, (self.noise_multiplier, other.noise_multiplier)), default=None),
            delta=min(self.delta, other.delta),
            epsilon_limit=_smaller(self.epsilon_limit, other.epsilon_limit),
            metrics=tuple(name for name in METRICS if name in self.metrics and name in other.metrics),
            decimals=min(self.decimals, other.decimals),
        )


def told_usual(usual: CohortUsual, rules: PrivacyRules) -> CohortUsual:
    """Return what of ``usual`` may be told: nothing of fewer patients than the minimum, rounded."""

    def may_be_told(one: Usual) -> bool:
        return one.patients >= rules.minimum_cases

    look = usual.look if "look" in rules.metrics and usual.look and may_be_told(usual.look) else None
    volumes = usual.volumes if "volumes" in rules.metrics else {}
    return CohortUsual(
        look=look and look.rounded(rules.decimals),
        volumes={value: one.rounded(rules.decimals) for value, one in volumes.items() if may_be_told(one)},
    )


def _smaller(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)
