"""``fedseg inspect``: what an image is, before anything is done with it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from FedSegCore.cli.output import console, emit_json


def inspect(
    image: Annotated[Path, typer.Argument(help="NIfTI, NRRD, MetaImage, PNG, JPEG or DICOM file, or a DICOM folder.")],
    modality: Annotated[str | None, typer.Option(help="Say the modality instead of having it detected.")] = None,
    frame: Annotated[int | None, typer.Option(help="Which volume of a 4-D image, counted from 0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of stdout.")] = False,
) -> None:
    """Show size, place, orientation, values and modality of an image."""
    from FedSegCore.volumes.description import describe_volume
    from FedSegCore.volumes.reading import read_volume

    facts = describe_volume(read_volume(image, modality=modality, frame=frame))
    if as_json:
        emit_json(facts)
    else:
        console.print(_table(facts))


def _table(facts: dict[str, Any]) -> Table:
    guess = facts["modality"]
    rows = {
        "Modality": f"{guess['value']} ({guess['confidence']:.0%}: {guess['reason']})",
        "Voxels": " x ".join(str(n) for n in facts["shape"]),
        "Spacing": " x ".join(f"{mm:.4g}" for mm in facts["spacing"]) + " mm",
        "Orientation": facts["orientation"] + (" (oblique)" if facts["oblique"] else ""),
        "Channels": str(facts["channels"]),
        "Values": "{:g} to {:g}".format(*facts["value_range"]) + f" ({facts['number_type']})",
        "Read from": facts["source"],
    }
    if facts["not_finite"]:
        rows["Not numbers"] = f"{facts['not_finite']} voxels, replaced by the smallest value"
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), value)
    return table
