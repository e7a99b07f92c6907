"""GIN samples of one image, as volumes beside the original: what augmentation does to it, before anyone trusts it."""

from typing import TYPE_CHECKING, Any

import torch

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import apply_gin, draw_gin
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

    The images are float32 on the network's own grid (LPS); values start in [0, 1], GIN may leave that range.

    Returns:
        ``original``: file name; ``samples``: list of {image, parameters, alpha}, file names in ``params.folder``.
    """
    original = _prepared(params, progress.part(0.0, 0.3))
    try:
        config = GinConfig(
            alpha=params.alpha,
            layers=params.layers,
            kernel_sizes=params.kernel_sizes,
            per_batch=params.per_batch,
        )
    except ValueError as error:
        raise BadInputError("gin.bad-settings", "These GIN settings do not fit.", "Go back to the defaults.") from error
    write_volume(original, params.folder / "original.nrrd")
    image = torch.from_numpy(original.array.copy())[None]
    samples = []
    for number in range(params.samples):
        part = progress.part(0.3 + 0.7 * number / params.samples, 0.3 + 0.7 * (number + 1) / params.samples)
        part.update(0.0, f"sample {number + 1} of {params.samples}")
        own = draw_gin(config, image.shape[1], 1, 3, sample_generator(params.seed, number))
        names = {"image": f"sample-{number + 1}.nrrd", "parameters": f"sample-{number + 1}.safetensors"}
        write_volume(original.with_array(apply_gin(image, own)[0].numpy()), params.folder / names["image"])
        own.save(params.folder / names["parameters"])
        samples.append({**names, "alpha": float(own.alpha[0])})
    progress.update(1.0, "done")
    return {"original": "original.nrrd", "samples": samples}


def _prepared(params: "GinPreviewParams", progress: Progress) -> Volume:
    progress.update(0.0, "reading the image")
    volume = read_volume(params.image, modality=params.modality, frame=params.frame)
    modality = params.modality or detect_modality(volume).modality
    if modality not in DEFAULT_PREPROCESSING:
        known = ", ".join(DEFAULT_PREPROCESSING)
        raise BadInputError("modality.unknown", f"{modality} images are not known here.", f"Choose one of {known}.")
    progress.update(0.5, "preparing the image")
    prepared = prepare(volume, DEFAULT_PREPROCESSING[modality])
    array, grid = prepared.image, prepared.grid
    if params.slices is not None and params.slices < grid.shape[0]:
        first = (grid.shape[0] - params.slices) // 2
        array = array[:, first : first + params.slices]
        grid = _from_slice(grid, first, params.slices)
    return Volume(array, grid, modality=modality)


def _from_slice(grid: Grid, first: int, count: int) -> Grid:
    origin = grid.affine() @ (0.0, 0.0, float(first), 1.0)
    return Grid((count, *grid.shape[1:]), grid.spacing, (origin[0], origin[1], origin[2]), grid.direction)
