"""A run's numbers as TensorBoard event files, one TensorBoard run per group, in ``<run>/metrics``.

They hold nothing but what the run's events hold already. A coordinator that is started again writes them anew from the
first round, so that no round is in them twice.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from FedSegCore.federation.coordinator.run_view import RoundView, RunView, closed_rounds
from FedSegCore.federation.private_files import private_folder

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

METRICS_FOLDER = "metrics"

_GROUP = re.compile(r"[A-Za-z0-9_-]{1,32}")


class MetricsFiles:
    """The event files of one run.

    Args:
        run_folder: the run's folder; ``metrics`` in it is emptied.
    """

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / METRICS_FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writers: dict[str, SummaryWriter] = {}
        self._written: dict[str, int] = {}

    def write(self, view: RunView) -> None:
        """Append the rounds that have closed since the last call; whole on disk when this returns."""
        for group, closed in closed_rounds(view):
            if closed.number > self._written.get(group.name, 0) and _GROUP.fullmatch(group.name):
                self._written[group.name] = closed.number
                writer = self._writer(group.name)
                for tag, value in round_scalars(closed):
                    writer.add_scalar(tag, value, closed.number, walltime=closed.closed)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, group: str) -> "SummaryWriter":
        # it imports torch where that is installed, which costs a coordinator seconds: not before there is a round
        from tensorboardX import SummaryWriter

        if group not in self._writers:
            self._writers[group] = SummaryWriter(str(private_folder(self._folder / group)))
        return self._writers[group]


def round_scalars(closed: RoundView) -> Iterator[tuple[str, float]]:
    """Yield (tag, value) of a closed round: loss, Dice by modality, label and site, bytes, seconds, sites."""
    if closed.loss is not None:
        yield "loss/mean", closed.loss
    for modality, labels in closed.dice().items():
        for label, value in labels.items():
            yield f"dice/{modality}/{label}", value
    yield "bytes/sent", float(closed.bytes_sent)
    yield "bytes/received", float(closed.bytes_received)
    yield "seconds/round", closed.closed - closed.started
    yield "sites/answered", float(len(closed.answered))
    yield "sites/missing", float(len(closed.sites) - len(closed.answered))
    for name, site in closed.sites.items():
        if site.code:
            continue
        yield f"site_seconds/{name}", site.seconds
        if site.loss is not None:
            yield f"site_loss/{name}", site.loss
        for label, value in site.scores.items():
            yield f"site_dice/{name}/{label}", value
