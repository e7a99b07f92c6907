"""What an experiment is expected to show, and whether its rows show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from FedSegCore.experiments.statistics import (
    Difference,
    Row,
    case_values,
    chosen_rows,
    paired_difference,
    spread,
    standard_error,
)


class Target(BaseModel):
    """A goal between settings, or of one setting, in mean Dice over the test cases and seeds that all of them have.

    Attributes:
        text: the goal in words.
        setting: whose value is judged.
        kind: ``"value"`` as it is; ``"difference"``, ``"relative"`` (value/best - 1) or ``"ratio"`` (value/best)
            against the best of ``against``; ``"near-best"``: the difference from the best, which may be short by as
            much as that one's standard error over patients.
        against: settings; ``"near-best"`` without any takes all.
        at_least: the goal, the same for all budgets or by budget (a budget not named has no goal).
        modality: only rows of this modality; all if None.
        sites: only rows of these sites; all if empty.
        measure: the site's own model (``"dice"``) or the group's (``"group_dice"``).
        size: only small lesions, or only the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    setting: str
    kind: Literal["value", "difference", "relative", "ratio", "near-best"] = "value"
    against: tuple[str, ...] = ()
    at_least: float | dict[str, float] = 0.0
    modality: str | None = None
    sites: tuple[str, ...] = ()
    measure: Literal["dice", "group_dice"] = "dice"
    size: Annotated[Literal["small", "large"] | None, Field()] = None

    @model_validator(mode="after")
    def _has_something_to_compare(self) -> Self:
        if self.kind in ("difference", "relative", "ratio") and not self.against:
            raise ValueError(f"a target of kind {self.kind!r} needs against")
        return self


@dataclass(frozen=True)
class Verdict:
    """A target and what came out.

    Attributes:
        text: the goal in words.
        found: the number that was to be at least ``goal``; None where the results have no such rows.
        goal: see there.
        reached: whether it was.
        words: the means behind it.
        gap: where settings are compared, how much Dice lies between the two, paired, with its interval.
    """

    text: str
    found: float | None
    goal: float
    reached: bool
    words: str
    gap: Difference | None = None


def judge(target: Target, rows: Sequence[Row], settings: Sequence[str], budget: str) -> Verdict | None:
    """Return whether ``rows`` reach the target; None where it has no goal for this budget."""
    goal = target.at_least.get(budget) if isinstance(target.at_least, dict) else target.at_least
    if goal is None:
        return None
    kept = chosen_rows(rows, modality=target.modality, sites=target.sites, size=target.size)
    names = target.against or (tuple(settings) if target.kind == "near-best" else ())
    values = {name: case_values(kept, name, target.measure) for name in {target.setting, *names}}
    values = {name: found for name, found in values.items() if found}
    shared = set.intersection(*(set(found) for found in values.values())) if values else set()
    if not shared or target.setting not in values or not set(target.against) <= values.keys():
        return Verdict(target.text, None, goal, False, "what it compares has not been run")
    means = {name: spread(found[where] for where in shared).mean for name, found in values.items()}
    kept = [row for row in kept if (row["seed"], row["modality"], row["case"]) in shared]
    own = means[target.setting]
    if target.kind == "value":
        return Verdict(target.text, own, goal, own >= goal, f"{own:.3f}")
    best = max((name for name in names if name in means), key=lambda name: means[name])
    if target.kind == "near-best":
        goal = -standard_error(kept, best, target.measure)
    top = means[best]
    found = _compared(target.kind, own, top)
    gap = None if best == target.setting else paired_difference(kept, target.setting, best, None, key=target.measure)
    return Verdict(target.text, found, goal, found >= goal, f"{own:.3f} against {top:.3f} ({best})", gap)


def _compared(kind: str, own: float, top: float) -> float:
    if kind in ("difference", "near-best"):
        return own - top
    ratio = own / top if top > 0.0 else float("inf")
    return ratio if kind == "ratio" else ratio - 1.0
