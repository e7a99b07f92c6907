"""What every aggregation rule is: a pure object that folds site updates, one at a time, into a new group model."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[np.generic]]
"""A model: tensor name → array, as in a torch state dict."""


@dataclass(frozen=True)
class SiteUpdate:
    """One site's answer to a round, already checked by the server.

    Attributes:
        site: the site's id in the federation.
        weights: its model after local training.
        num_examples: training examples (images in 2-D, cases in 3-D) n_k.
        num_steps: optimiser steps s_k.
        extras: further tensors a rule asks for (FedGS's accumulated update), by name.
        received: the model the site was sent; empty means the group model.
        loss: its mean training loss; None where it does not tell it.
    """

    site: str
    weights: Arrays
    num_examples: int
    num_steps: int = 1
    extras: Arrays = field(default_factory=dict)
    received: Arrays = field(default_factory=dict)
    loss: float | None = None


@dataclass(frozen=True)
class Aggregate:
    """What a rule makes of a round.

    Attributes:
        group_model: the group's model: released, and sent to sites that have no model of their own.
        site_model: site id → that site's own model for the next round, computed when asked; KeyError where this round
            made none: the site keeps the one it has. None where every site gets the group model.
        absent_model: (site id, the own model it has) → its own model for the next round, for a site that has not
            answered; None where that stays as it is.
        rule_state: what the rule itself must remember for the next round (momentum …), saved with the group.
        alone: the group model is made of no more than one site's, so that it is sent to no other.
    """

    group_model: Arrays
    site_model: Callable[[str], Arrays] | None = None
    absent_model: Callable[[str, Arrays], Arrays] | None = None
    rule_state: Arrays = field(default_factory=dict)
    alone: bool = False


SiteStore = MutableMapping[str, Arrays]
"""Where a rule keeps what sites sent: a dict in tests, files at the server, so that memory does not grow with sites."""


class AggregationRule(Protocol):
    """One round of one group: ``begin``, ``fold`` once per site in any order, ``finish``."""

    def begin(self, group_model: Arrays, rule_state: Arrays, store: SiteStore) -> None:
        """Start a round from the model the group had, forgetting the former round."""

    def fold(self, update: SiteUpdate) -> None:
        """Take in one site's update.

        Raises:
            ValueError: the site's second update in a round, or one the rule cannot use; nothing of it was taken in.
        """

    def finish(self) -> Aggregate:
        """Close the round; without any update the group model is returned unchanged."""
