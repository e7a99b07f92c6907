"""The Flower server app: runs the federation's loop in a folder of the coordinator.

The coordinator's executor sets ``FEDSEG_RUNS`` to its folder of runs, and the run's configuration names one of them:
``<FEDSEG_RUNS>/<run>/federation.json`` is the federation, ``initial`` holds the models its groups may begin with;
state, events and outcome are written beside them.
"""

import os
import re
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.delivery import deliver_plan
from FedSegCore.federation.events import EVENTS_FILE, RUNS_VARIABLE, EventLog
from FedSegCore.federation.initial_model import read_initial_model
from FedSegCore.federation.rounds import CONFIG_FILE, FederationLoop
from FedSegCore.federation.steady_grid import SteadyGrid

RUN_KEY = "run"
DELIVER_KEY = "deliver"

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of this Flower run, or deliver its releases; an error ends the run as failed."""
    folder = run_folder(str(context.run_config.get(RUN_KEY, "")))
    steady = SteadyGrid(grid)
    steady.bound_answers()
    if context.run_config.get(DELIVER_KEY):
        deliver_plan(steady, folder, EventLog(folder / EVENTS_FILE))
        return
    FederationLoop(
        steady,
        read_run_config(folder),
        folder,
        admitted=partial(admitted_sites, folder.parent.parent),
        make_model=partial(read_initial_model, folder),
    ).run()


def run_folder(run: str) -> Path:
    """Return the folder of the run called ``run``.

    Raises:
        BadInputError: ``run.unknown``: no plain name, or no such folder below ``FEDSEG_RUNS``.
    """
    runs = os.environ.get(RUNS_VARIABLE, "")
    folder = Path(runs) / run
    if not runs or not _RUN_NAME.fullmatch(run) or not folder.is_dir():
        raise BadInputError("run.unknown", "The coordinator has no run of that name.", "List the runs.")
    return folder


def admitted_sites(coordinator: Path) -> frozenset[tuple[str, int]] | None:
    """Return (site, Flower node) of all sites that a coordinator admits now; None where its list cannot be read."""
    try:
        return frozenset((site.name, site.node_id) for site in CoordinatorFolder.open(coordinator).sites())
    except BadInputError:
        return None


def read_run_config(folder: Path) -> FederationConfig:
    """Return the federation of a run's folder; raises BadInputError ``run.config``."""
    try:
        return FederationConfig.model_validate_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise BadInputError("run.config", f"{CONFIG_FILE} of the run cannot be used.", "Start a new run.") from error
