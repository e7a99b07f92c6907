"""Aggregation rules by name, with their options checked."""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.batch_norm import BatchNormPolicy
from FedSegCore.federation.aggregation.fedavg import FedAvg
from FedSegCore.federation.aggregation.fedgs import FedGs
from FedSegCore.federation.aggregation.flames import Flames
from FedSegCore.federation.aggregation.robust import Krum, Median, TrimmedMean
from FedSegCore.federation.aggregation.rule import AggregationRule
from FedSegCore.federation.config import AggregationConfig


class RuleOptions(BaseModel):
    """Options of every rule.

    Attributes:
        batch_norm: what becomes of BatchNorm layers (``aggregation.batch_norm``); must be said where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_norm: Literal["share", "local"] | None = None


class FedAvgOptions(RuleOptions):
    """Options of ``fedavg``."""

    weighting: Literal["examples", "steps", "equal"] = "examples"


class FlamesOptions(RuleOptions):
    """Options of ``flames``."""

    alpha: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    alpha_offset: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    sizes: Literal["inverse", "equal", "direct"] = "inverse"
    update: Literal["weights", "fedgs"] = "weights"
    absent: Literal["keep", "mix"] = "mix"


class FedGsOptions(RuleOptions):
    """Options of ``fedgs``; the sites' side is ``training.fedgs``."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class TrimmedMeanOptions(RuleOptions):
    """Options of ``trimmed_mean``."""

    beta: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.2


class KrumOptions(RuleOptions):
    """Options of ``krum``."""

    malicious: Annotated[int, Field(ge=0, le=10_000)] = 1


class FlowerOptions(RuleOptions):
    """Options of ``flower``: one of Flower's own strategies."""

    strategy: str
    arguments: dict[str, int | float] = {}
    clipping_norm: Annotated[float, Field(gt=0.0)] | None = None
    noise_multiplier: Annotated[float, Field(ge=0.0)] | None = None

    @model_validator(mode="after")
    def _privacy_whole(self) -> Self:
        if (self.clipping_norm is None) != (self.noise_multiplier is None):
            raise ValueError("give clipping_norm and noise_multiplier together")
        return self


def _flower(**options: object) -> AggregationRule:
    # imported when used: it brings all of Flower's server side
    from FedSegCore.federation.aggregation.flower_strategy import FlowerStrategy

    name = str(options.pop("strategy"))
    return FlowerStrategy(name, **options)  # type: ignore[arg-type]


_RULES: dict[str, tuple[type[RuleOptions], Callable[..., AggregationRule]]] = {
    "fedavg": (FedAvgOptions, FedAvg),
    "fedgs": (FedGsOptions, FedGs),
    "flames": (FlamesOptions, Flames),
    "flower": (FlowerOptions, _flower),
    "krum": (KrumOptions, Krum),
    "median": (RuleOptions, Median),
    "trimmed_mean": (TrimmedMeanOptions, TrimmedMean),
}


def rule_names() -> tuple[str, ...]:
    """Return the names ``build_rule`` knows."""
    return tuple(_RULES)


def build_rule(config: AggregationConfig) -> AggregationRule:
    """Return a new rule.

    Raises:
        BadInputError: ``federation.rule-unknown`` or ``federation.rule-options``.
    """
    if config.rule not in _RULES:
        raise BadInputError(
            "federation.rule-unknown",
            f"There is no aggregation rule {config.rule!r}.",
            f"Use one of {', '.join(_RULES)}.",
        )
    schema, make = _RULES[config.rule]
    try:
        checked = schema.model_validate(config.options)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or config.rule}: {e['msg']}" for e in error.errors())
        raise BadInputError(
            "federation.rule-options", f"Options of {config.rule}: {problems}.", "Correct [aggregation.options]."
        ) from error
    return BatchNormPolicy(make(**checked.model_dump(exclude={"batch_norm"})), checked.batch_norm)
