"""GIN samples of one image, as volumes beside the original: what augmentation does to it, before anyone trusts it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.preparation import prepare
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume

if TYPE_CHECKING:
    from FedSegCore.worker.methods import GinPreviewParams


def write_gin_samples(params: "GinPreviewParams", progress: Progress) -> dict[str, Any]:
    """Write the prepared original and ``samples`` GIN samples of it, with the parameters that made each.

    Sample n is the one that ``fedseg gin`` draws with the same seed and settings (``sample_generator(seed, n)``), or,
    with ``per_batch``, image n of one batch with a common network. The images are float32 on the network's own grid
    (LPS); values start in [0, 1], GIN may leave that range.

    Returns:
        ``original``: file name; ``samples``: list of {image, parameters, alpha}, file names in ``params.folder``.

    Raises:
        BadInputError: ``gin.bad-settings``, ``modality.unknown``, ``image.*``.
    """
    config = _config(params)
    original, dimensions = _prepared(params, progress.part(0.0, 0.3))
    write_volume(original, params.folder / "original.nrrd")
    image = torch.from_numpy(np.ascontiguousarray(original.array))[None]
    samples = []
    for number, own in enumerate(_drawn(config, params, original.channels, dimensions)):
        progress.update(0.3 + 0.7 * number / params.samples, f"sample {number + 1} of {params.samples}")
        names = {"image": f"sample-{number + 1}.nrrd", "parameters": f"sample-{number + 1}.safetensors"}
        write_volume(original.with_array(apply_gin(image, own)[0].numpy()), params.folder / names["image"])
        own.save(params.folder / names["parameters"])
        samples.append({**names, "alpha": float(own.alpha[0])})
    progress.update(1.0, "done")
    return {"original": "original.nrrd", "samples": samples}


def _config(params: "GinPreviewParams") -> GinConfig:
    try:
        return GinConfig(
            alpha=params.alpha, layers=params.layers, kernel_sizes=params.kernel_sizes, per_batch=params.per_batch
        )
    except ValueError as error:
        raise BadInputError("gin.bad-settings", "These GIN settings do not fit.", "Go back to the defaults.") from error


def _drawn(config: GinConfig, params: "GinPreviewParams", channels: int, dimensions: int) -> list[GinParameters]:
    """Return the parameters of each sample, as 3-D ones; one slice thick where the image has only one slice."""
    if config.per_batch:
        batch = draw_gin(config, channels, params.samples, dimensions, sample_generator(params.seed, 0)).as_3d()
        return [batch.select(torch.tensor([number])) for number in range(params.samples)]
    generators = (sample_generator(params.seed, number) for number in range(params.samples))
    return [draw_gin(config, channels, 1, dimensions, generator).as_3d() for generator in generators]


def _prepared(params: "GinPreviewParams", progress: Progress) -> tuple[Volume, int]:
    """Return the image as the network gets it (before standardising), and in how many dimensions GIN works on it."""
    progress.update(0.0, "reading the image")
    volume = read_volume(params.image, modality=params.modality, frame=params.frame)
    modality = params.modality or detect_modality(volume).modality
    if modality not in DEFAULT_PREPROCESSING:
        known = ", ".join(DEFAULT_PREPROCESSING)
        raise BadInputError("modality.unknown", f"{modality} images are not known here.", f"Choose one of {known}.")
    progress.update(0.5, "preparing the image")
    prepared = prepare(volume, DEFAULT_PREPROCESSING[modality])
    array, grid = prepared.image, prepared.grid
    dimensions = 3 if grid.shape[0] > 1 else 2
    if params.slices is not None and params.slices < grid.shape[0]:
        first = (grid.shape[0] - params.slices) // 2
        array = array[:, first : first + params.slices]
        grid = _from_slice(grid, first, params.slices)
    return Volume(array, grid, modality=modality), dimensions


def _from_slice(grid: Grid, first: int, count: int) -> Grid:
    origin = grid.affine() @ (0.0, 0.0, float(first), 1.0)
    return Grid((count, *grid.shape[1:]), grid.spacing, (origin[0], origin[1], origin[2]), grid.direction)
