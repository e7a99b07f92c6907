"""How long segmenting took on this computer, and how much memory: what to expect of the next volume.

Kept are the release, the device, sizes, seconds and bytes; nothing of the image, no name, no path.
"""

import json
import math
import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from FedSegCore.common.files import write_text

if TYPE_CHECKING:
    from FedSegCore.models.card import ModelCard

MOST_RUNS = 200
"""Runs kept; older ones are forgotten."""
RUNS_LOOKED_AT = 5
"""Latest runs with a release on a device that say what to expect."""
_LOOK_EVERY_SECONDS = 0.2


class Run(BaseModel):
    """One finished segmentation.

    Attributes:
        release: what segmented.
        device: where.
        image_voxels: of the image.
        network_voxels: of the image on the network's own grid, which the time goes with.
        seconds: from reading the image to its labels.
        memory_bytes: by how much the worker grew meanwhile, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    device: Literal["cpu", "cuda"]
    image_voxels: int = Field(ge=1)
    network_voxels: int = Field(ge=1)
    seconds: float = Field(gt=0)
    memory_bytes: int = Field(ge=0)


_RUNS = TypeAdapter(tuple[Run, ...])


def default_book() -> Path:
    """Return the file in which this user's runs are kept (``FEDSEG_SPEEDS`` names another)."""
    return Path(os.environ.get("FEDSEG_SPEEDS") or Path.home() / ".fedseg" / "speeds.json")


def voxel_counts(card: "ModelCard", modality: str, size: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
    """Return the voxels of an image (size and mm along (i, j, k)) and of the same on the release's own grid."""
    target = card.modalities[modality].spacing
    network = [max(1.0, n * mm / (wanted or mm)) for n, mm, wanted in zip(size, spacing, target, strict=True)]
    return math.prod(size), max(1, round(math.prod(network)))


class SpeedBook:
    """The runs on this computer.

    Args:
        path: their file; one that is missing or damaged counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def runs(self) -> tuple[Run, ...]:
        """Return the runs, oldest first."""
        try:
            return _RUNS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return ()

    def note(self, run: Run) -> None:
        """Add a run; a disk that cannot be written to only means that less is known next time."""
        kept = [known.model_dump() for known in (*self.runs(), run)[-MOST_RUNS:]]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(kept))
        except OSError:
            return

    def expect(self, release: str, device: str, image_voxels: int, network_voxels: int) -> dict[str, Any]:
        """Return what to expect of an image, from the latest runs with the same release on the same device.

        Returns:
            ``runs``: how many there were; with none, ``seconds`` and ``memory_bytes`` are None, because nobody knows.
            ``free_bytes``: memory that is free now.
        """
        known = [run for run in self.runs() if (run.release, run.device) == (release, device)][-RUNS_LOOKED_AT:]
        facts: dict[str, Any] = {"runs": len(known), "seconds": None, "memory_bytes": None}
        if known:
            facts["seconds"] = round(_median([r.seconds / r.network_voxels for r in known]) * network_voxels, 1)
            facts["memory_bytes"] = round(_median([r.memory_bytes / r.image_voxels for r in known]) * image_voxels)
        return {**facts, "free_bytes": int(psutil.virtual_memory().available)}


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


class Watch:
    """Notes time and the growth of this process from entering to leaving.

    Attributes:
        seconds: after leaving.
        memory_bytes: after leaving; sampled several times a second.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self._peak = 0
        self.seconds = 0.0
        self.memory_bytes = 0

    def __enter__(self) -> Self:
        self._started, self._first = time.monotonic(), self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self.seconds = max(1e-3, time.monotonic() - self._started)
        self.memory_bytes = max(0, self._peak - self._first)

    def _look(self) -> None:
        while True:
            self._peak = max(self._peak, self._process.memory_info().rss)
            if self._over.wait(_LOOK_EVERY_SECONDS):
                return
