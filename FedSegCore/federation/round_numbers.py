"""What the answers of a round come to, in numbers for people."""

from collections.abc import Iterable
from statistics import fmean

from FedSegCore.federation.state_store import SiteRound
from FedSegCore.learning.results import CaseScore


def mean_dice(scores: tuple[CaseScore, ...]) -> dict[str, float]:
    """Return label → mean Dice over cases."""
    labels = sorted({score.label for score in scores})
    return {label: fmean(score.dice for score in scores if score.label == label) for label in labels}


def answer_words(row: SiteRound) -> str:
    """Return what people are told of a used answer (``"loss 0.412, Dice 0.80, 35 s"``)."""
    told = [] if row.loss is None else [f"loss {row.loss:.3f}"]
    means = mean_dice(row.scores)
    told += [f"Dice {fmean(means.values()):.2f}"] if means else []
    return ", ".join([*told, f"{row.answer_seconds:.0f} s"])


def largest_share(rows: Iterable[SiteRound]) -> float | None:
    """Return the share, in (0, 1], of the site with most examples in those of all used answers; None without any."""
    examples = [row.examples for row in rows if not row.code]
    return round(max(examples) / sum(examples), 3) if any(examples) else None
