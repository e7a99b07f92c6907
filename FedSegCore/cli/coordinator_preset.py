"""``fedseg coordinator preset``: the papers' protocols, as federation files to use or to change."""

from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console, emit_json
from FedSegCore.common.errors import UsageError


def preset(
    name: Annotated[str | None, typer.Argument(help="Which one; without, their names are listed.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; else NAME.toml here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Write a federation file that comes with FedSegSlicer: a paper's protocol, or a quick variant of it."""
    from FedSegCore.common.files import write_text
    from FedSegCore.federation.presets import preset_names, preset_path

    if name is None:
        if out is not None:
            raise UsageError("preset.which", "Which preset is to be written?", f"One of {', '.join(preset_names())}.")
        for known in preset_names():
            console.print(f"  {known}")
        if as_json:
            emit_json({"presets": list(preset_names())})
        return
    text = preset_path(name).read_text(encoding="utf-8")
    file = out or Path(f"{name}.toml")
    if file.exists() or not file.parent.is_dir():
        raise UsageError("preset.out", f"{file.name} exists already, or its folder does not.", "Give another --out.")
    write_text(file, text)
    console.print(f"Wrote {file}. Look through it, then: fedseg coordinator invite COORD {file}", soft_wrap=True)
    if as_json:
        emit_json({"preset": name, "file": str(file)})
