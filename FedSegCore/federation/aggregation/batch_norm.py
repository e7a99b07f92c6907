"""BatchNorm under federation: said explicitly, since averaging the statistics of CT and MR is rarely meant."""

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.rule import Aggregate, AggregationRule, Arrays, SiteStore, SiteUpdate

_STATE = "batch-norm/"
_MARK = ".running_mean"
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def batch_norm_names(model: Arrays) -> frozenset[str]:
    """Return the names of all tensors of layers that keep running statistics (scale and shift included)."""
    layers = [name.removesuffix(_MARK) for name in model if name.endswith(_MARK)]
    return frozenset(f"{layer}.{tensor}" for layer in layers for tensor in _TENSORS if f"{layer}.{tensor}" in model)


class BatchNormPolicy:
    """Wraps a rule and says what becomes of BatchNorm layers.

    ``"share"`` leaves them to the rule like any tensor (counters are never averaged). ``"local"`` gives every site
    its own back (FedBN, Li et al., ICLR 2021), kept per site in the rule's state; the group model has the rule's.
    None refuses a model that has such layers.

    Args:
        rule: the rule that makes everything else.
        policy: see above.
    """

    def __init__(self, rule: AggregationRule, policy: Literal["share", "local"] | None) -> None:
        self._rule = rule
        self._policy = policy

    def begin(self, group_model: Arrays, rule_state: Arrays, store: SiteStore) -> None:
        """See ``AggregationRule.begin``; raises BadInputError ``federation.batch-norm-policy``."""
        self._names = batch_norm_names(group_model)
        if self._names and self._policy is None:
            raise no_policy()
        self._norms = {name: array for name, array in rule_state.items() if name.startswith(_STATE)}
        inner = {name: array for name, array in rule_state.items() if not name.startswith(_STATE)}
        self._rule.begin(group_model, inner, store)

    def fold(self, update: SiteUpdate) -> None:
        """See ``AggregationRule.fold``."""
        self._rule.fold(update)
        if self._policy == "local":
            for name in self._names:
                self._norms[f"{_STATE}{update.site}/{name}"] = update.weights[name]

    def finish(self) -> Aggregate:
        """See ``AggregationRule.finish``."""
        inner = self._rule.finish()
        if self._policy != "local" or not self._names:
            return inner

        def with_own_norms(site: str, base: Arrays) -> dict[str, npt.NDArray[np.generic]]:
            return {**base, **{name: self._norms[f"{_STATE}{site}/{name}"] for name in self._names}}

        def site_model(site: str) -> Arrays:
            return with_own_norms(site, inner.group_model if inner.site_model is None else inner.site_model(site))

        def absent_model(site: str, own: Arrays) -> Arrays:
            return own if inner.absent_model is None else with_own_norms(site, inner.absent_model(site, own))

        return replace(
            inner,
            site_model=site_model,
            absent_model=absent_model,
            rule_state={**inner.rule_state, **self._norms},
        )


def without_sites(rule_state: Arrays, sites: Collection[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Return a rule's state without the layers of ``sites``."""
    theirs = tuple(f"{_STATE}{site}/" for site in sites)
    return {name: array for name, array in rule_state.items() if not name.startswith(theirs)}


def no_policy() -> BadInputError:
    """Return the error of a model with BatchNorm layers in a federation that says nothing of them."""
    return BadInputError(
        "federation.batch-norm-policy",
        "The network has BatchNorm layers, and the federation does not say what becomes of them.",
        'Set batch_norm = "share" or "local" under [aggregation.options], or use InstanceNorm.',
    )
