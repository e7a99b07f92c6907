"""The ``fedseg`` command: its sub-commands, and what every one does with an error."""

import logging
import sys
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
from FedSegCore.common.errors import CancelledError, FedSegError
from FedSegCore.runtime.in_use import hold_own_runtime


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
        console.print(Text.assemble((error.code, "bold red"), f"  {error.what}"), soft_wrap=True)
        console.print(error.remedy, soft_wrap=True)
        code = error.exit_code
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
