"""``fedseg coordinator export``: a release for people outside the federation."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console, emit_json


class _Kind(StrEnum):
    FEDSEG = "fedseg"
    MONAI = "monai-bundle"


def export(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder.")],
    release: Annotated[str, typer.Argument(help="A release's id, or its name for the newest version.")],
    out: Annotated[Path, typer.Option(help="New folder, or new file ending in .zip.")],
    kind: Annotated[_Kind, typer.Option("--format", help="For FedSegSlicer, or for MONAI's bundle runner.")] = (
        _Kind.FEDSEG
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Export RELEASE with its weights, card, signature, public key and a text for people."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.releasing import release_of
    from FedSegCore.models.export import export_release

    chosen = release_of(CoordinatorFolder.open(folder), release)
    written = export_release(chosen, out, kind.value)
    console.print(f"{chosen.id} is in {written.name}. Read out the fingerprint of your releases to who gets it:")
    console.print(f"  {chosen.signer}")
    if as_json:
        emit_json({"release": chosen.id, "signer": chosen.signer, "format": kind.value, "out": str(written)})
