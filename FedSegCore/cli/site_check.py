"""``fedseg site check``: can this site take part, and if not, which layer fails and what cures it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.errors import CannotDoHereError

_GIB = 1024**3


def check(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    disk_gib: Annotated[float, typer.Option(min=0.0, help="Free disk room wanted, in GiB.")] = 5.0,
    memory_gib: Annotated[float, typer.Option(min=0.0, help="Free memory wanted, in GiB.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for each connection.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Find out whether the site can take part; name the layer that fails and the cure (exit code 4)."""
    from FedSegCore.federation.site.folder import SiteFolder
    from FedSegCore.federation.site.preflight import first_failure, preflight
    from FedSegCore.federation.site.preflight_machine import Needs

    needs = Needs(int(disk_gib * _GIB), int(memory_gib * _GIB), timeout)
    with progress_bar("Check") as progress:
        findings = preflight(SiteFolder.open(folder), progress, needs)
    for found in findings:
        sign = ("ok  ", "green") if found.ok else ("FAIL", "red") if found.tried else (" -  ", "dim")
        console.print(Text.assemble("  ", sign, f" {found.layer:13} {found.words}"), soft_wrap=True)
    if as_json:
        emit_json({"findings": [asdict(found) for found in findings]})
    failed = first_failure(findings)
    if failed is not None:
        raise CannotDoHereError(failed.code, failed.words, failed.remedy)
    console.print("The site can take part.")
