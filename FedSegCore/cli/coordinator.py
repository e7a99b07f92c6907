"""``fedseg coordinator``: set up a federation's coordinator, admit sites, start and stop runs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from FedSegCore.cli.options import checked_options
from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.errors import CancelledError

if TYPE_CHECKING:
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

app = typer.Typer(no_args_is_help=True, help="Run a federation: set up, admit sites, start and stop runs.")

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]

_TICK_S = 0.3


@app.command()
def init(
    folder: Folder,
    federation: Annotated[str, typer.Option(help="The federation's name.")],
    host: Annotated[list[str], typer.Option(help="Name or address by which sites reach it; may be given again.")],
    listen: Annotated[str, typer.Option(help="Address the sites' listener is bound to.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port the sites connect to.")] = 9443,
    control_port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback for this command.")] = 9444,
) -> None:
    """Make a coordinator in a new FOLDER: certificate authority, server certificate, secrets."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings

    given = {"federation": federation, "hosts": host, "fleet_host": listen, "fleet_port": port}
    settings = checked_options(CoordinatorSettings, {**given, "control_port": control_port})
    made = CoordinatorFolder.create(folder, settings)
    console.print(f"The coordinator of {federation} is ready. Give the sites the file {made.authority_certificate}.")


@app.command()
def start(folder: Folder) -> None:
    """Serve the federation until Ctrl+C; use another terminal for the other commands."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient
    from FedSegCore.federation.coordinator.service import CoordinatorProcesses
    from FedSegCore.federation.process_group import stop_trees

    opened = CoordinatorFolder.open(folder)
    processes = CoordinatorProcesses(opened)
    with progress_bar("Coordinator") as progress:
        try:
            progress.update(0.0, "starting")
            processes.start()
            with ControlClient(opened) as control:
                control.wait_until_up(progress)
            settings = opened.settings()
            console.print(f"Sites connect to port {settings.fleet_port} of {', '.join(settings.hosts)}.")
            while True:
                for words in processes.tick():
                    console.print(words)
                progress.update(1.0, "serving; Ctrl+C stops")
                time.sleep(_TICK_S)
        except CancelledError:
            console.print("Stopping.")
        finally:
            stop_trees(processes.processes())


@app.command()
def register(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The site's name.")],
    public_key: Annotated[Path, typer.Argument(help="The key.pub that the site made.")],
    as_json: Json = False,
) -> None:
    """Admit a site by its public key. Compare the fingerprint with the site by telephone first."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient

    with ControlClient(CoordinatorFolder.open(folder)) as control:
        site = control.admit(name, public_key)
    console.print(f"{site.name} is admitted; its key is {site.fingerprint}.")
    if as_json:
        emit_json(site.model_dump())


@app.command()
def run(
    folder: Folder,
    federation: Annotated[Path, typer.Argument(help="The federation's TOML file.")],
    name: Annotated[str, typer.Option(help="The run's name; a name used before goes on with its next round.")],
    publishing: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publish the models as signed releases at the end.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Start a run, follow it to its end and publish its models; Ctrl+C stops it."""
    from FedSegCore.federation.config import read_federation_config
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.follow import follow_run, write_run
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    config = read_federation_config(federation)
    with progress_bar(name) as progress, ControlClient(opened) as control:
        control.wait_until_up(progress, limit_s=2.0)
        run_folder = write_run(opened, name, config)
        run_id = control.start(name)
        follow_run(control, run_folder, run_id, progress)
    console.print(f"The run {name} is done; its results are in {run_folder}.")
    releases = _publish(opened, name) if publishing else []
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


def _publish(opened: "CoordinatorFolder", name: str) -> list[str]:
    from FedSegCore.federation.coordinator.releasing import publish_run

    releases = [path.name for path in publish_run(opened, name).values()]
    console.print(f"Published {', '.join(releases)} in {opened.releases}.")
    return releases


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show the admitted sites, who is connected, and the runs."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    with ControlClient(opened) as control:
        online = control.online()
        runs = control.runs()
    told: dict[str, Any] = {
        "sites": [{"name": site.name, "connected": site.node_id in online} for site in opened.sites()],
        "runs": [{"run_id": str(number), "stage": r.stage, "outcome": r.outcome} for number, r in runs.items()],
    }
    for site in told["sites"]:
        console.print(f"  {site['name']}: {'connected' if site['connected'] else 'not connected'}")
    for entry in told["runs"]:
        console.print(f"  run {entry['run_id']}: {entry['outcome'] or entry['stage']}")
    if as_json:
        emit_json(told)


@app.command()
def stop(folder: Folder, run_id: Annotated[int, typer.Argument(help="Number of the run, as status shows it.")]) -> None:
    """Stop a run; the coordinator goes on serving."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient

    with ControlClient(CoordinatorFolder.open(folder)) as control:
        control.status(run_id)
        control.stop(run_id)
    console.print(f"Run {run_id} is stopped.")
