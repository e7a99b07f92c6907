"""Between the checks and the rule: a round's updates wait on disk until their lengths can be compared.

One site cannot say what is extreme; the median of all does, as long as fewer than half of them are wrong: one of three,
two of five. So the first ``HELD`` updates of a round wait in files and are folded in order of the sites' names, which
also makes the model independent of who answered first; with more sites, later ones are compared as they come. No more
than one update is in memory at a time.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from FedSegCore.federation.aggregation.rule import AggregationRule, SiteUpdate
from FedSegCore.federation.array_files import Joined, LazyArrays, Part, make_folder, save_arrays

HELD = 8
"""Updates that wait for each other."""

FEWEST = 3
"""Sites below which nobody can tell which of them is extreme."""

MOST_STEPS = 10.0
"""How many times the median site's steps an update's length is allowed for: what steps a site did is its own word."""

EXTREME = "reply.extreme"
REFUSED_BY_RULE = "reply.refused-by-rule"

_WEIGHTS, _EXTRAS = "w/", "x/"


@dataclass(frozen=True)
class _Held:
    update: SiteUpdate
    length: float
    file: Path


class Incoming:
    """A round's checked updates on their way to the rule.

    An update is extreme where it is longer than ``factor`` times the median length; a site that did more steps than the
    median site may be longer in proportion, up to ``MOST_STEPS`` times. Sites that trained nothing or changed nothing
    do not count for the median.

    Args:
        rule: begun; updates are folded into it.
        folder: for waiting updates; emptied by whoever gives it.
        factor: how many times the median is extreme; None compares nothing.
    """

    def __init__(self, rule: AggregationRule, folder: Path, factor: float | None) -> None:
        self._rule = rule
        self._folder = folder
        self._factor = factor
        self._held: list[_Held] | None = []
        self._seen: list[tuple[float, int]] = []

    def take(self, update: SiteUpdate, length: float) -> dict[str, str]:
        """Take one update in.

        Args:
            update: checked by itself.
            length: its L2 norm.

        Returns:
            Site → code of those, of this and former calls, whose update turned out to be of no use.

        Raises:
            CannotDoHereError: ``federation.disk``.
        """
        if length > 0.0 and update.num_steps > 0:
            self._seen.append((length, update.num_steps))
        if self._held is None:
            return self._fold(update, length)
        make_folder(self._folder)
        file = self._folder / f"waiting-{len(self._held):06d}.safetensors"
        save_arrays(file, Joined({_WEIGHTS: update.weights, _EXTRAS: update.extras}))
        self._held.append(_Held(replace(update, weights={}, extras={}), length, file))
        return self.settle() if len(self._held) >= HELD else {}

    def settle(self) -> dict[str, str]:
        """Fold what waits; returns site → code of updates that were of no use. Later ones do not wait."""
        waiting, self._held = self._held or [], None
        found: dict[str, str] = {}
        for held in sorted(waiting, key=lambda one: one.update.site):
            found |= self._fold(_read(held), held.length)
            # what cannot be deleted now goes with the folder, at the end of the round
            with suppress(OSError):
                held.file.unlink()
        return found

    def _fold(self, update: SiteUpdate, length: float) -> dict[str, str]:
        if self._is_extreme(length, update.num_steps):
            return {update.site: EXTREME}
        try:
            self._rule.fold(update)
        except ValueError:
            return {update.site: REFUSED_BY_RULE}
        return {}

    def _is_extreme(self, length: float, steps: int) -> bool:
        if self._factor is None or len(self._seen) < FEWEST:
            return False
        usual = median(seen for seen, _ in self._seen)
        more = steps / median(done for _, done in self._seen)
        return length > self._factor * usual * min(MOST_STEPS, max(1.0, more))


def _read(held: _Held) -> SiteUpdate:
    tensors = LazyArrays(held.file)
    return replace(held.update, weights=Part(tensors, _WEIGHTS), extras=Part(tensors, _EXTRAS))
