"""GIN samples of one image, as volumes beside the original: what augmentation does to it, before anyone trusts it."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.quality import (
    interior,
    look_distance,
    look_histogram,
    look_of,
    measures,
    representative_slice,
)
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.volumes.prepared_image import prepare_image
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume

if TYPE_CHECKING:
    from FedSegCore.worker.methods import GinPreviewParams, GinReplayParams

Array = npt.NDArray[np.float32]

_SLAB = 16
"""Slices GIN works on at once: short enough to be cancelled soon, and always the same, so that replays are exact."""


@dataclass(frozen=True)
class _Ready:
    """An image as the network gets it, before standardising: float32 (c, k, j, i) in [0, 1]."""

    image: Array
    grid: Grid
    preprocessing: Preprocessing
    confidence: float

    @property
    def dimensions(self) -> int:
        return 3 if self.grid.shape[0] > 1 else 2


class GinPreviewer:
    """Makes samples; keeps the last two images as prepared (one to look at, one to compare with)."""

    def __init__(self) -> None:
        self._kept: dict[object, _Ready] = {}

    def preview(self, params: "GinPreviewParams", progress: Progress) -> dict[str, Any]:
        """Write GIN samples of the prepared image, the parameters that made each, and the original if wanted.

        Sample n is the one that ``fedseg gin`` draws with the same seed and settings (``sample_generator(seed, n)``),
        or, with ``per_batch``, image n of one batch with a common network. The images are float32 on the network's own
        grid (LPS); values start in [0, 1], GIN may leave that range. Of ``slices`` slices only, a sample is that of the
        whole volume up to one factor, since GIN keeps the norm of what it is given.

        Returns:
            ``original``: file name or None; ``modality``, ``confidence`` and ``preprocessing`` it was prepared with;
            ``slab`` {first, count, of} in slices of the prepared image, and ``slice``, the one that the slice's
            measures are of, all k of the prepared image; ``look``: histograms of the original and the reference and
            their distance; ``samples``: list of {number, image, parameters, alpha, reach, sha256, histogram_distance,
            correlation, edges, reference_distance, histogram}, file names in ``params.folder``, ``sha256`` that of the
            voxels. Distances to the reference and histograms are of all voxels written, other measures of the slice.

        Raises:
            BadInputError: ``gin.bad-settings``, ``modality.unsupported``, ``image.*``.
        """
        config = _config(params)
        ready = self._ready(params.image, params.modality, params.frame, None, progress.part(0.0, 0.2))
        reference = None
        if params.reference is not None:
            other = self._ready(params.reference, params.reference_modality, None, None, progress.part(0.2, 0.3))
            reference = look_of(other.image)
        shown = _shown_slice(ready, params.around)
        first, count = _slab(ready, shown, params.slices)
        original = _cut(ready, first, count)
        if params.with_original:
            _write(original, params.folder / "original.nrrd")
        rows = []
        drawn = _drawn(config, params, ready)
        for index, (number, own) in enumerate(drawn):
            part = progress.part(0.3 + 0.7 * index / len(drawn), 0.3 + 0.7 * (index + 1) / len(drawn))
            part.update(0.0, f"sample {index + 1} of {len(drawn)}")
            changed = _changed(ready, own, first, count, part)
            names = {"image": f"sample-{number + 1}.nrrd", "parameters": f"sample-{number + 1}.safetensors"}
            _write(original.with_array(changed), params.folder / names["image"])
            own.save(params.folder / names["parameters"])
            rows.append({"number": number, **names, **_row(original.array, changed, own, shown - first, reference)})
        progress.update(1.0, "done")
        return {
            "original": "original.nrrd" if params.with_original else None,
            "modality": ready.preprocessing.modality,
            "confidence": ready.confidence,
            "preprocessing": ready.preprocessing.model_dump(mode="json"),
            "slab": {"first": first, "count": count, "of": ready.grid.shape[0]},
            "slice": shown,
            "look": _looks(original.array, reference),
            "samples": rows,
        }

    def replay(self, params: "GinReplayParams", progress: Progress) -> dict[str, Any]:
        """Write the sample that given parameters make of an image; on one machine the same voxels every time.

        Returns:
            ``sha256`` of the voxels, as ``preview`` gave it for the whole volume.

        Raises:
            BadInputError: ``gin.unreadable``, ``gin.invalid``, ``image.*``.
        """
        own = _parameters_in(params)
        try:
            preprocessing = Preprocessing.model_validate(params.preprocessing)
        except ValidationError as error:
            raise BadInputError(
                "gin.invalid", "What was noted on this sample is damaged.", "Make a new sample of the image."
            ) from error
        ready = self._ready(params.image, preprocessing.modality, params.frame, preprocessing, progress.part(0.0, 0.3))
        if own.images != 1 or own.channels != ready.image.shape[0]:
            raise BadInputError(
                "gin.invalid", "These GIN parameters do not fit this image.", "Choose the image the sample was made of."
            )
        whole = ready.grid.shape[0]
        changed = _changed(ready, own, 0, whole, progress.part(0.3, 0.9))
        _write(_cut(ready, 0, whole).with_array(changed), params.output)
        progress.update(1.0, "done")
        return {"sha256": _voxels_sha256(changed)}

    def _ready(
        self, path: Path, modality: str | None, frame: int | None, how: Preprocessing | None, progress: Progress
    ) -> _Ready:
        written = path.stat() if path.is_file() else None
        key = (path, modality, frame, how, written and (written.st_mtime_ns, written.st_size))
        if key not in self._kept or written is None:
            ready = _prepared(path, modality, frame, how, progress)
            self._kept = {**dict(list(self._kept.items())[-1:]), key: ready}
        else:
            self._kept[key] = self._kept.pop(key)  # the last one used is the last to go
        return self._kept[key]


def _config(params: "GinPreviewParams") -> GinConfig:
    try:
        return GinConfig(
            alpha=params.alpha, layers=params.layers, kernel_sizes=params.kernel_sizes, per_batch=params.per_batch
        )
    except ValueError as error:
        raise BadInputError("gin.bad-settings", "These GIN settings do not fit.", "Go back to the defaults.") from error


def _prepared(
    path: Path, modality: str | None, frame: int | None, how: Preprocessing | None, progress: Progress
) -> _Ready:
    made = prepare_image(path, progress, modality=modality, frame=frame, preprocessing=how)
    return _Ready(made.prepared.image, made.prepared.grid, made.preprocessing, made.confidence)


def _drawn(config: GinConfig, params: "GinPreviewParams", ready: _Ready) -> list[tuple[int, GinParameters]]:
    """Return number and parameters of each sample, as 3-D ones; one slice thick where the image has only one slice."""
    numbers = range(params.first, params.first + params.samples)
    channels, dimensions = ready.image.shape[0], ready.dimensions
    if config.per_batch:
        batch = draw_gin(config, channels, numbers.stop, dimensions, sample_generator(params.seed, 0)).as_3d()
        return [(number, batch.select(torch.tensor([number]))) for number in numbers]
    generators = ((number, sample_generator(params.seed, number)) for number in numbers)
    return [(number, draw_gin(config, channels, 1, dimensions, own).as_3d()) for number, own in generators]


def _shown_slice(ready: _Ready, around: tuple[float, float, float] | None) -> int:
    """Return the k nearest to an LPS point, or a telling one where none is given or it lies outside."""
    if around is not None:
        k = round(float((np.linalg.inv(ready.grid.affine()) @ [*around, 1.0])[2]))
        if 0 <= k < ready.grid.shape[0]:
            return k
    return representative_slice(ready.image)


def _slab(ready: _Ready, shown: int, slices: int | None) -> tuple[int, int]:
    """Return first slice and number of slices around ``shown``."""
    whole = ready.grid.shape[0]
    count = min(slices or whole, whole)
    return min(max(0, shown - count // 2), whole - count), count


def _cut(ready: _Ready, first: int, count: int) -> Volume:
    origin = ready.grid.affine() @ (0.0, 0.0, float(first), 1.0)
    grid = Grid(
        (count, *ready.grid.shape[1:]), ready.grid.spacing, (origin[0], origin[1], origin[2]), ready.grid.direction
    )
    return Volume(ready.image[:, first : first + count], grid, modality=ready.preprocessing.modality)


def _changed(ready: _Ready, own: GinParameters, first: int, count: int, progress: Progress) -> Array:
    """Return GIN's sample of some slices; as many more are computed on each side as the network reaches."""
    start = max(0, first - own.reach)
    part = np.ascontiguousarray(ready.image[:, start : first + count + own.reach])
    changed = apply_gin(torch.from_numpy(part)[None], own, slab=_SLAB, check=progress.check)[0].numpy()
    return np.ascontiguousarray(changed[:, first - start : first - start + count])


def _row(
    original: Array, changed: Array, own: GinParameters, k: int, reference: npt.NDArray[np.float64] | None
) -> dict[str, Any]:
    before, after = (interior(image[:, k], own) for image in (original, changed))
    distance, correlation, edges = measures(before, after)
    look = look_of(interior(changed, own))
    return {
        "alpha": float(own.alpha[0]),
        "reach": own.reach,
        "sha256": _voxels_sha256(changed),
        "histogram_distance": distance,
        "correlation": correlation,
        "edges": edges,
        "reference_distance": None if reference is None else look_distance(look, reference),
        "histogram": look_histogram(look),
    }


def _looks(original: Array, reference: npt.NDArray[np.float64] | None) -> dict[str, Any]:
    look = look_of(original)
    return {
        "original": look_histogram(look),
        "reference": None if reference is None else look_histogram(reference),
        "distance": None if reference is None else look_distance(look, reference),
    }


def _write(volume: Volume, path: Path) -> None:
    write_volume(volume, path, compressed=False)


def _voxels_sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _parameters_in(params: "GinReplayParams") -> GinParameters:
    """Return the parameters that travel as base64 text; raises BadInputError ``gin.unreadable``, ``gin.invalid``."""
    beside = params.output.with_suffix(".safetensors")
    try:
        beside.write_bytes(base64.b64decode(params.parameters, validate=True))
        return GinParameters.load(beside)
    except ValueError as error:
        raise BadInputError(
            "gin.unreadable", "What was noted on this sample is damaged.", "Make a new sample of the image."
        ) from error
    finally:
        beside.unlink(missing_ok=True)
