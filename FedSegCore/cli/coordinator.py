"""``fedseg coordinator``: set up a federation's coordinator, admit sites, start and stop runs."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from FedSegCore.cli.coordinator_admission import admit, expel, invite, renew, requests, runs
from FedSegCore.cli.coordinator_export import export
from FedSegCore.cli.coordinator_preset import preset
from FedSegCore.cli.coordinator_status import status, tell_fingerprints
from FedSegCore.cli.options import checked_options
from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.errors import CancelledError, CannotDoHereError

if TYPE_CHECKING:
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

app = typer.Typer(no_args_is_help=True, help="Run a federation: set up, admit sites, start and stop runs.")

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]

_TICK_S = 0.3

_log = logging.getLogger(__name__)


@app.command()
def init(
    folder: Folder,
    federation: Annotated[str, typer.Option(help="The federation's name.")],
    host: Annotated[list[str], typer.Option(help="Name or address by which sites reach it; may be given again.")],
    listen: Annotated[
        str | None, typer.Option(help="Address the sites' listener is bound to; all, also IPv6 if a --host is one.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port the sites connect to.")] = 9443,
    control_port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback for this command.")] = 9444,
) -> None:
    """Make a coordinator in a new FOLDER: certificate authority, server certificate, secrets."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings, everywhere

    given = {"federation": federation, "hosts": host, "fleet_port": port}
    given["fleet_host"] = listen or everywhere(host)
    settings = checked_options(CoordinatorSettings, {**given, "control_port": control_port})
    made = CoordinatorFolder.create(folder, settings)
    console.print(f"The coordinator of {federation} is ready. Its fingerprints, to be read out by telephone:")
    tell_fingerprints(made.fingerprints())
    console.print(f"'fedseg coordinator invite {folder}' writes the file that sites join with.", soft_wrap=True)


@app.command()
def start(folder: Folder) -> None:
    """Serve the federation until Ctrl+C; use another terminal for the other commands."""
    from FedSegCore.federation.coordinator.certificates import expiry_notice
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.monitoring import Monitor
    from FedSegCore.federation.coordinator.renewal import renew_in_time
    from FedSegCore.federation.coordinator.runs import ControlClient
    from FedSegCore.federation.coordinator.service import CoordinatorProcesses
    from FedSegCore.federation.process_log import log_to_json

    opened = CoordinatorFolder.open(folder)
    log_to_json(opened.logs, "coordinator")
    processes, monitor = CoordinatorProcesses(opened), Monitor(opened)
    with progress_bar("Coordinator") as progress:
        try:
            progress.update(0.0, "starting")
            if renew_in_time(opened):
                console.print("The server certificate was in its last month, and is renewed.")
            elif notice := expiry_notice(opened.server_certificate):
                console.print(notice)
            processes.start()
            with ControlClient(opened) as control:
                control.wait_until_up(progress)
            settings = opened.settings()
            console.print(f"Sites connect to port {settings.fleet_port} of {', '.join(settings.hosts)}.")
            console.print(f"Open {monitor.page} in a browser to watch.")
            _log.info("serving")
            while True:
                for words in processes.tick():
                    console.print(words)
                    _log.warning(words)
                monitor.tick()
                progress.update(1.0, "serving; Ctrl+C stops")
                time.sleep(_TICK_S)
        except CancelledError:
            console.print("Stopping.")
            _log.info("stopping")
        finally:
            processes.close()
            monitor.close()


@app.command()
def run(
    folder: Folder,
    federation: Annotated[Path, typer.Argument(help="The federation's TOML file.")],
    name: Annotated[str, typer.Option(help="The run's name; a name used before goes on with its next round.")],
    publishing: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publish the models as signed releases at the end.")
    ] = True,
    pretrained: Annotated[
        Path | None,
        typer.Option(help="DenseNet-121's weights (safetensors), with which the network of FLAMES begins."),
    ] = None,
    delivering: Annotated[
        bool, typer.Option("--deliver/--no-deliver", help="Send what was published to the sites that are connected.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Start a run, follow it to its end, publish its models and send them to the sites; Ctrl+C stops it."""
    from FedSegCore.federation.config import read_federation_config
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.follow import follow_run, start_or_join
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    config = read_federation_config(federation)
    with progress_bar(name) as progress, ControlClient(opened) as control:
        control.wait_until_up(progress, limit_s=2.0)
        run_id, went_on = start_or_join(opened, control, name, config, pretrained)
        if went_on:
            console.print(f"The run {name} is going on already; it is followed from here on.")
        run_folder = opened.runs / name
        follow_run(control, run_folder, run_id, progress)
    console.print(f"The run {name} is done; its results are in {run_folder}.")
    releases = _publish(opened, name) if publishing else []
    if releases and delivering:
        try:
            _deliver(opened, name)
        except CannotDoHereError as error:  # the models are published all the same
            console.print(f"The releases were not delivered: {error.what} {error.remedy}", soft_wrap=True)
            console.print(f"'fedseg coordinator deliver {folder} {name}' tries again.", soft_wrap=True)
    if as_json:
        told = {"run": name, "run_id": str(run_id), "outcome": "completed", "folder": str(run_folder)}
        emit_json({**told, "releases": releases})


@app.command()
def publish(
    folder: Folder, name: Annotated[str, typer.Argument(help="The run's name.")], as_json: Json = False
) -> None:
    """Publish the models of a run, as far as it has come, as signed releases."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

    releases = _publish(CoordinatorFolder.open(folder), name)
    if as_json:
        emit_json({"run": name, "releases": releases})


@app.command()
def deliver(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="A run's name; its events tell who received what.")],
    as_json: Json = False,
) -> None:
    """Offer the newest releases to all connected sites and send each what it has not got yet."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

    received = _deliver(CoordinatorFolder.open(folder), name)
    if as_json:
        emit_json({"run": name, "received": received})


def _deliver(opened: "CoordinatorFolder", name: str) -> dict[str, list[str]]:
    from FedSegCore.federation.coordinator.follow import follow_run
    from FedSegCore.federation.coordinator.releasing import delivered, plan_delivery
    from FedSegCore.federation.coordinator.runs import ControlClient

    plan, since = plan_delivery(opened, name), time.time()
    with progress_bar("Delivery") as progress, ControlClient(opened) as control:
        control.wait_until_up(progress, limit_s=2.0)
        follow_run(control, opened.runs / name, control.start(name, deliver=True), progress)
    received, declined = delivered(opened, name, since)
    for site in plan.sites:
        if site in received:
            console.print(f"{site} has received {', '.join(received[site])}.")
        elif site in declined:
            console.print(f"{site} took nothing ({declined[site]}).")
    console.print("Sites that are not connected get the newest releases at the next delivery.")
    return received


def _publish(opened: "CoordinatorFolder", name: str) -> list[str]:
    from FedSegCore.federation.coordinator.releasing import publish_run

    releases = [path.name for path in publish_run(opened, name).values()]
    console.print(f"Published {', '.join(releases)} in {opened.releases}.")
    return releases


@app.command()
def stop(folder: Folder, run_id: Annotated[int, typer.Argument(help="Number of the run, as status shows it.")]) -> None:
    """Stop a run; the coordinator goes on serving."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.follow import stop_run
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    with ControlClient(opened) as control:
        status = control.status(run_id)
        if status.finished:
            console.print(f"Run {run_id} has ended already ({status.outcome}).")
            return
        stop_run(control, opened.runs, run_id)
    console.print(f"Run {run_id} is stopped.")


app.command()(export)
app.command()(preset)
app.command()(status)
for command in (invite, requests, admit, expel, renew, runs):
    app.command()(command)
