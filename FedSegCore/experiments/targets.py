"""What an experiment is expected to show, and whether its rows show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from FedSegCore.experiments.statistics import (
    Difference,
    Row,
    case_of,
    case_values,
    chosen_rows,
    paired_difference,
    setting_spread,
)


class Target(BaseModel):
    """A goal between settings, or of one setting, in mean Dice over the patients that all of them have.

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
    cases = {name: case_values(kept, name, target.measure).keys() for name in {target.setting, *names}}
    cases = {name: found for name, found in cases.items() if found}
    shared = set.intersection(*(set(found) for found in cases.values())) if cases else set()
    if not shared or target.setting not in cases or not set(target.against) <= cases.keys():
        return Verdict(target.text, None, goal, False, "what it compares has not been run")
    kept = [row for row in kept if (row["seed"], row["modality"], case_of(row)) in shared]
    means = {name: found for name in cases if (found := setting_spread(kept, name, target.measure))}
    own = means[target.setting].mean
    if target.kind == "value":
        return Verdict(target.text, own, goal, own >= goal, f"{own:.3f}")
    best = max((name for name in names if name in means), key=lambda name: means[name].mean)
    if target.kind == "near-best":
        goal = -means[best].standard_error
    top = means[best].mean
    value = _compared(target.kind, own, top)
    words = f"{own:.3f} against {top:.3f} ({best})"
    if value is None:
        return Verdict(target.text, None, goal, False, f"nothing to be a part of: {words}")
    gap = None if best == target.setting else paired_difference(kept, target.setting, best, None, key=target.measure)
    return Verdict(target.text, value, goal, value >= goal, words, gap)


def _compared(kind: str, own: float, top: float) -> float | None:
    """Return what ``kind`` compares; None for a part of 0."""
    if kind in ("difference", "near-best"):
        return own - top
    if top <= 0.0:
        return None
    return own / top if kind == "ratio" else own / top - 1.0
