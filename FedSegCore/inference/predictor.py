"""A network over a whole prepared image: MONAI's sliding window with Gaussian blending, in bounded memory."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.inference.certainty import CertaintyCounter
from FedSegCore.inference.devices import is_out_of_memory
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.preparation import standardise as standardise_batch

OVERLAP = 0.25
"""Share of a tile that overlaps the next; with Gaussian weights, tile borders count little."""
BLOCK_BYTES = 512 * 2**20
"""Memory for the probabilities of the part of the image in work (float32), whatever the image's size."""
TILES_AT_ONCE = {"cpu": 4, "cuda": 16}
"""Tiles per forward pass of a 2-D network; a 3-D network takes one (cpu) or two (cuda)."""
_SMALLEST_TILE = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tiling:
    """How tiles are cut and where they are computed.

    Attributes:
        patch_size: (k, j, i) voxels of a tile; k is ignored by a 2-D network.
        device: of the network.
        tiles_at_once: tiles per forward pass.
    """

    patch_size: tuple[int, int, int]
    device: torch.device
    tiles_at_once: int

    def easier(self, trained: tuple[int, int, int], *, smaller: bool) -> "Tiling | None":
        """Return what needs less device memory: one tile at once, then smaller tiles, then the processor; else None.

        Args:
            trained: (k, j, i) voxels of the tiles that the network was trained on, with which the processor begins.
            smaller: tiles may be smaller than those.
        """
        if self.tiles_at_once > 1:
            return replace(self, tiles_at_once=1)
        halved = tuple(max(_SMALLEST_TILE, n // 2 // 16 * 16) if n > _SMALLEST_TILE else n for n in self.patch_size)
        if smaller and halved != self.patch_size:
            return replace(self, patch_size=(halved[0], halved[1], halved[2]))
        return replace(self, patch_size=trained, device=torch.device("cpu")) if self.device.type != "cpu" else None


@dataclass
class Predictor:
    """A network ready to be run over images.

    Attributes:
        network: in any mode and on any device; left in evaluation mode, and where ``tiling`` last was.
        config: its configuration.
        tiling: first tried; replaced by an easier one when memory runs out, which ``notes`` tells in words.
        standardise: bring every tile to zero mean and unit variance first, as in training. A smaller tile, with other
            contents to go by, would be another image to the network; so where memory is short it stays as large.
        overlap: share of a tile that overlaps the next.
        values: contract values the network was taught; others, on which no site's loss ever said anything, are never
            given. None: all.
        notes: what had to be done differently, for people.
    """

    network: nn.Module
    config: NetworkConfig
    tiling: Tiling
    standardise: bool = True
    overlap: float = OVERLAP
    values: Sequence[int] | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._trained = self.tiling.patch_size

    def labels(
        self, image: npt.NDArray[np.floating], progress: Progress, counter: CertaintyCounter | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the most probable label of every voxel, uint8 (k, j, i), of an image (c, k, j, i) in [0, 1].

        Args:
            image: prepared.
            progress: told of every tile.
            counter: told how sure the labels are.

        Raises:
            CannotDoHereError: ``device.memory``.
            CancelledError: within one forward pass.
        """
        out = np.empty(image.shape[1:], np.uint8)
        for start, end, part in self._blocks(image, progress):
            out[start:end] = part.max(0).indices.to(torch.uint8).numpy()  # torch's argmax takes five times as long
            if counter is not None:
                counter.add(part.numpy(), out[start:end])
        return out

    def probabilities(self, image: npt.NDArray[np.floating], progress: Progress) -> npt.NDArray[np.float16]:
        """Return float16 (K + 1, k, j, i), summing to 1 over the first axis, of an image (c, k, j, i) in [0, 1].

        Raises:
            CannotDoHereError: ``device.memory``.
            CancelledError: within one forward pass.
        """
        out = np.empty((self.config.out_channels, *image.shape[1:]), np.float16)
        for start, end, part in self._blocks(image, progress):
            out[:, start:end] = part.to(torch.float16).numpy()
        return out

    def _blocks(self, image: npt.NDArray[np.floating], progress: Progress) -> Iterator[tuple[int, int, Tensor]]:
        """Yield (start, end, float32 probabilities (K + 1, end - start, j, i)) along k."""
        blocks = self._plan(image.shape)
        for number, block in enumerate(blocks):
            part = progress.part(number / len(blocks), (number + 1) / len(blocks))
            source = torch.from_numpy(image[:, block.first : block.last].astype(np.float32))
            scores = self._with_less_memory_if_needed(source, part)
            yield block.start, block.end, scores[:, block.start - block.first : block.end - block.first]

    def _plan(self, shape: Sequence[int]) -> list["_Block"]:
        slices, per_slice = shape[1], 4 * (self.config.out_channels + 2) * shape[2] * shape[3]
        fitting = max(1, BLOCK_BYTES // per_slice)
        if self.config.dimensions == 2 or fitting >= slices:
            size, margin = fitting, 0
        else:
            # At a cut, what the last tile of one side cannot see is left to the tiles of the other side.
            margin = self.tiling.patch_size[0] // 2
            size = max(self.tiling.patch_size[0], fitting - 2 * margin)
        return [
            _Block(start, min(start + size, slices), max(0, start - margin), min(start + size + margin, slices))
            for start in range(0, slices, size)
        ]

    def _with_less_memory_if_needed(self, source: Tensor, progress: Progress) -> Tensor:
        while True:
            try:
                return self._slide(source, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                easier = self.tiling.easier(self._trained, smaller=not self.standardise)
                if easier is None:
                    raise _too_little_memory() from error
            self._go_on_with(easier)

    def _go_on_with(self, easier: Tiling) -> None:
        if easier.device != self.tiling.device:
            note = "The graphics card has too little memory; the processor is used."
        elif easier.patch_size != self.tiling.patch_size:
            note = "Memory is short; smaller tiles are used, which may cost a little accuracy."
        else:
            note = "Memory is short; one tile is computed at a time."
        _log.warning(note)
        self.notes.append(note)
        self.tiling = easier
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _slide(self, source: Tensor, progress: Progress) -> Tensor:
        """Return probabilities (K + 1, k, j, i) on the CPU for ``source`` (c, k, j, i)."""
        flat = self.config.dimensions == 2
        roi = self.tiling.patch_size[1:] if flat else self.tiling.patch_size
        inputs = source.movedim(1, 0) if flat else source[None]
        self.network.to(self.tiling.device).eval()
        tiles = tile_count(inputs.shape[2:], roi, self.overlap) * len(inputs)
        out = sliding_window_inference(
            inputs,
            roi,
            self.tiling.tiles_at_once,
            self._forward(progress, tiles),
            overlap=self.overlap,
            mode="gaussian",
            sw_device=self.tiling.device,
            device=torch.device("cpu"),
        )
        return out.movedim(0, 1) if flat else out[0]

    def _forward(self, progress: Progress, tiles: int) -> Callable[[Tensor], Tensor]:
        done = 0

        def forward(batch: Tensor) -> Tensor:
            nonlocal done
            progress.update(done / tiles, f"tile {done + 1} of {tiles}")
            batch = standardise_batch(batch) if self.standardise else batch
            scores: Tensor = self.network(batch)
            done += len(batch)
            scores = scores.float()
            if self.values is not None:
                untaught = [n for n in range(1, scores.shape[1]) if n not in self.values]
                scores[:, untaught] = -torch.inf
            return scores.softmax(1)

        return forward


@dataclass(frozen=True)
class _Block:
    """Slices ``start`` to ``end`` are kept of a prediction over ``first`` to ``last``."""

    start: int
    end: int
    first: int
    last: int


def make_predictor(
    network: nn.Module,
    config: NetworkConfig,
    patch_size: tuple[int, int, int],
    device: torch.device,
    *,
    standardise: bool,
    values: Sequence[int] | None = None,
) -> Predictor:
    """Return a predictor with the tiles at once that suit the device; ``values`` as in ``Predictor``."""
    at_once = TILES_AT_ONCE.get(device.type, 1) if config.dimensions == 2 else 1 + (device.type == "cuda")
    return Predictor(network, config, Tiling(patch_size, device, at_once), standardise, values=values)


def tile_count(shape: Sequence[int], patch: Sequence[int], overlap: float) -> int:
    """Return how many tiles MONAI's sliding window cuts from one image of ``shape``."""
    count = 1
    for size, side in zip(shape, patch, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count *= 1 + max(0, math.ceil((size - side) / step))
    return count


def _too_little_memory() -> CannotDoHereError:
    return CannotDoHereError(
        "device.memory", "There is too little memory for this.", "Close other programs or use a larger machine."
    )
