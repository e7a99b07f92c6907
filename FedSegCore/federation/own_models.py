"""Sites' own models between two rounds: kept for who is away, forgotten for who is gone, never anybody else's."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from FedSegCore.federation.aggregation.batch_norm import without_sites
from FedSegCore.federation.aggregation.rule import Aggregate, Arrays
from FedSegCore.federation.state_store import GroupState

LEFT = "site.left"
"""The code of a site whose people took it out of the federation."""

Admitted = Callable[[], Collection[tuple[str, int]] | None]
"""() → (site, Flower node) of all that are admitted; None where nobody keeps such a list."""


def unknown() -> None:
    """Say that nobody keeps a list of admitted sites."""


def without_expelled(state: GroupState, admitted: Collection[tuple[str, int]] | None) -> GroupState:
    """Return ``state`` without what belongs to sites that are not admitted any more, or anew with another key."""
    if admitted is None:
        return state
    nodes = {name: member.node_id for name, member in state.members.items() if member.node_id is not None}
    gone = {name for name, node_id in nodes.items() if (name, node_id) not in admitted}
    kept = {name: arrays for name, arrays in state.site_models.items() if name not in gone}
    return replace(state, site_models=kept, rule_state=without_sites(state.rule_state, gone))


def without_namesakes(
    state: GroupState, admitted: Collection[tuple[str, int]] | None, nodes: Mapping[str, int]
) -> GroupState:
    """Return ``state`` without members whose name is another's by now: what they told is not the newcomer's.

    Args:
        state: before a round.
        admitted: None where nobody keeps such a list; there a site may be another node after every start.
        nodes: site → the Flower node it is asked as.
    """
    if admitted is None:
        return state
    others = {name for name, member in state.members.items() if member.node_id not in (None, nodes.get(name))}
    kept = {name: member for name, member in state.members.items() if name not in others & nodes.keys()}
    return replace(state, members=kept)


def own_models(made: Aggregate, before: GroupState, left: Collection[str]) -> Callable[[str], Arrays] | None:
    """Return site → its own model: what the round made of its answer, or of what it had; KeyError where it has none.

    Args:
        made: the round's result.
        before: the group before the round.
        left: sites that have left: they keep nothing.
    """
    if made.site_model is None:
        return None
    new = made.site_model

    def own_model(site: str) -> Arrays:
        if site in left:
            # before the rule is asked: it may still know the site's layers
            raise KeyError(site)
        try:
            return new(site)
        except KeyError:
            had = before.site_models[site]
            return had if made.absent_model is None else made.absent_model(site, had)

    return own_model


def common_model(made: Aggregate, before: GroupState) -> Arrays:
    """Return what sites without a model of their own are sent; empty where that is the group model."""
    return (before.common_model or before.model) if made.alone else {}
