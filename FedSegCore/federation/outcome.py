"""What a run left in its folder: models, per-site models, history; the same for in-process and real runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.rule import Arrays
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.rounds import CONFIG_FILE, STATE_FOLDER, read_state_config
from FedSegCore.federation.state_store import DONE, GroupStateStore, Member, SiteRound


@dataclass(frozen=True)
class GroupResult:
    """One group after its last closed round.

    Attributes:
        group: its name.
        rounds: rounds closed.
        done: whether all planned rounds were.
        model: the group model.
        site_models: site → its own model, read when asked.
        common_model: what other sites would be sent; empty where that is ``model``.
        members: site → who it is and how often it answered.
        history: what every site did in every round, in order.
    """

    group: str
    rounds: int
    done: bool
    model: Arrays
    site_models: Mapping[str, Arrays]
    common_model: Arrays
    members: Mapping[str, Member]
    history: tuple[SiteRound, ...]

    def model_of(self, site: str) -> Arrays:
        """Return the model that ``site`` would be sent next."""
        own = self.site_models.get(site)
        return (self.common_model or self.model) if own is None else own

    def answering(self) -> dict[str, Member]:
        """Return the members of whom at least one answer was used."""
        return {site: member for site, member in self.members.items() if member.rounds_answered}

    def trained_values(self) -> tuple[int, ...]:
        """Return the contract values that at least one site annotated: what the model was taught to tell apart."""
        return tuple(sorted({value for row in self.history for value in row.annotated}))

    def score_rows(self) -> list[dict[str, Any]]:
        """Return one row per round, site, case and label: {group, round, site, case, label, dice, iou,
        surface_distance_mm}. Round r's scores are of the model before round r's training."""
        return [
            {
                "group": self.group,
                "round": row.round_number,
                "site": row.site,
                "case": score.case,
                "label": score.label,
                "dice": score.dice,
                "iou": score.iou,
                "surface_distance_mm": score.surface_distance_mm,
            }
            for row in self.history
            for score in row.scores
        ]


@dataclass(frozen=True)
class FederationOutcome:
    """A run's result.

    Attributes:
        config: the federation.
        groups: group name → result; groups that closed no round are missing.
    """

    config: FederationConfig
    groups: Mapping[str, GroupResult]

    @classmethod
    def load(cls, folder: Path) -> "FederationOutcome":
        """Read a run's folder, also of a run that is still going on or was stopped.

        Raises:
            BadInputError: ``federation.no-run``; ``federation.state-unreadable``.
        """
        path = folder / STATE_FOLDER / CONFIG_FILE
        if not path.exists():
            raise BadInputError("federation.no-run", f"{folder.name} holds no run.", "Give a run's folder.")
        config = read_state_config(path)
        store = GroupStateStore(folder / STATE_FOLDER)
        return cls(config, {name: _group(store, name) for name in store.groups()})


def _group(store: GroupStateStore, name: str) -> GroupResult:
    state = store.load(name)
    if state is None:
        raise KeyError(name)
    return GroupResult(
        group=name,
        rounds=state.round_number,
        done=state.ended == DONE,
        model=state.model,
        site_models=state.site_models,
        common_model=state.common_model,
        members=state.members,
        history=store.history(name, state.round_number),
    )
