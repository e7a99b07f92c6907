"""The ``fedseg`` command: its sub-commands, and what every one does with an error."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from rich.text import Text

from FedSegCore import __version__
from FedSegCore.cli import coordinator, releases, site
from FedSegCore.cli.demo import demo
from FedSegCore.cli.experiment import experiment
from FedSegCore.cli.gin import gin
from FedSegCore.cli.inspect import inspect
from FedSegCore.cli.output import console
from FedSegCore.cli.results import results
from FedSegCore.cli.segment import segment
from FedSegCore.cli.worker import worker
from FedSegCore.common.errors import CancelledError, CannotDoHereError, FedSegError
from FedSegCore.runtime.in_use import hold_own_runtime

_log = logging.getLogger(__name__)


def _print_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"fedseg {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Federated medical image segmentation: segment, inspect, see augmentation, train together."""


def build_app() -> typer.Typer:
    """Return the command line with all sub-commands."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(_root)
    app.command()(demo)
    app.command()(experiment)
    app.command()(results)
    app.command()(segment)
    app.command()(worker)
    app.command()(inspect)
    app.command()(gin)
    app.add_typer(coordinator.app, name="coordinator")
    app.add_typer(site.app, name="site")
    app.add_typer(releases.app, name="releases")
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 2 wrong usage, 3 bad input, 4 cannot be done here, 130 cancelled."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    hold_own_runtime()
    try:
        code = build_app()(standalone_mode=False)
    except click.exceptions.Abort:
        code = CancelledError.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FedSegError as error:
        code = _tell(error)
    except OSError as error:
        code = _cannot(error)
    sys.exit(code or 0)


def _tell(error: FedSegError) -> int:
    console.print(Text.assemble((error.code, "bold red"), f"  {error.what}"), soft_wrap=True)
    console.print(error.remedy, soft_wrap=True)
    return error.exit_code


def _cannot(error: OSError) -> int:
    """Tell what the system refuses, by the file's name: a whole path would end up in the logs of who calls us."""
    _log.debug("the system refuses", exc_info=error)
    place = Path(str(error.filename or ""))
    if place.name.startswith("."):  # a file that is still being written has a name that says nothing
        place = place.parent
    name = f" with {place.name}" if place.name else ""
    return _tell(
        CannotDoHereError(
            "system.refused",
            f"This computer could not do what is needed{name} ({error.strerror or type(error).__name__}).",
            "Look whether there is room on the disk and whether you may write there, then try again.",
        )
    )


if __name__ == "__main__":
    main()
