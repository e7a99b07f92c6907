"""``fedseg gin``: see what the augmentation does to an image before trusting it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.errors import UsageError
from FedSegCore.common.progress import Progress

if TYPE_CHECKING:
    from FedSegCore.augmentation.quality import GinSamples
    from FedSegCore.volumes.preparation import Prepared


def gin(
    image: Annotated[Path, typer.Argument(help="NIfTI, NRRD, MetaImage, DICOM file or series folder, PNG or JPEG.")],
    out: Annotated[Path, typer.Option(help="Picture to write, a .png file.")],
    samples: Annotated[int, typer.Option(min=1, max=100, help="How many samples.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same samples.")] = 0,
    modality: Annotated[str | None, typer.Option(help="CT, MR, US or ES; detected where not given.")] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=2, max=3, help="2: the slice alone; 3: the volume. By the image if not given.")
    ] = None,
    slice_index: Annotated[
        int | None, typer.Option("--slice", min=0, help="Slice of the prepared image; a telling one if not given.")
    ] = None,
    frame: Annotated[int | None, typer.Option(min=0, help="Which volume of a 4-D image.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was drawn as one line of JSON.")] = False,
) -> None:
    """Write a picture of random samples of the GIN augmentation beside the image they were made from."""
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise UsageError("gin.out", "--out must be a .png file in a folder that exists.", "Give such a file.")
    # Imported here so that the other commands start without torch and matplotlib.
    from FedSegCore.augmentation.quality_picture import write_gin_grid
    from FedSegCore.volumes.prepared_image import prepare_image

    with progress_bar("GIN") as progress:
        made = prepare_image(image, progress.part(0.0, 0.2), modality=modality, frame=frame)
        drawn = _draw(made.prepared, samples, seed, dimensions, slice_index, progress.part(0.2, 0.95))
        write_gin_grid(drawn, out)
        progress.update(1.0, "done")
    chosen = made.preprocessing.modality
    console.print(f"{samples} samples of slice {drawn.slice_index} ({chosen}) are in {out.name}.")
    if as_json:
        emit_json({"modality": chosen, "seed": seed, "slice": drawn.slice_index, "samples": _rows(drawn)})


def _draw(
    prepared: "Prepared", samples: int, seed: int, dimensions: int | None, slice_index: int | None, progress: Progress
) -> "GinSamples":
    from FedSegCore.augmentation.config import GinConfig
    from FedSegCore.augmentation.quality import gin_samples

    slices = prepared.grid.shape[0]
    if slice_index is not None and slice_index >= slices:
        raise UsageError(
            "gin.slice", f"The prepared image has {slices} slices, 0 to {slices - 1}.", "Choose one of them."
        )
    return gin_samples(
        prepared.image,
        GinConfig(),
        samples=samples,
        seed=seed,
        dimensions=dimensions or (3 if slices > 1 else 2),
        slice_index=slice_index,
        spacing=prepared.grid.spacing,
        progress=progress,
    )


def _rows(drawn: "GinSamples") -> list[dict[str, Any]]:
    return [
        {
            "sample": sample.number,
            "alpha": sample.alpha,
            "histogram_distance": sample.histogram_distance,
            "correlation": sample.correlation,
            "edges": sample.edges,
        }
        for sample in drawn.samples
    ]
