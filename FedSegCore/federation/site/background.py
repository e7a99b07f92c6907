"""A site's processes without a terminal: started so that they outlive who started them, found again, ended in order."""

import subprocess
import time

import psutil

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.private_files import private_folder
from FedSegCore.federation.process_group import Child, child_environment
from FedSegCore.federation.site.control import has_left, known_control
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.status import is_running, read_status

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 25.0
_LOOK_S = 0.1


def start(folder: SiteFolder, progress: Progress) -> "subprocess.Popen[bytes]":
    """Start ``fedseg site run`` in a session of its own and wait until it looks after the site.

    Its words are in ``logs/run.log``. The process goes on when this one ends; ``site.status`` finds it again.

    Raises:
        UsageError: ``site.has-left``.
        CannotDoHereError: ``site.already-running``, ``site.not-started``.
        CancelledError: cancelled; what was started is ended.
    """
    if known_control(folder).leaving:
        raise has_left()
    if is_running(folder):
        raise CannotDoHereError(
            "site.already-running", "This site is running already.", "Use the one that runs, or end it first."
        )
    private_folder(folder.logs)
    child = Child(
        name="site",
        module="FedSegCore.cli.main",
        arguments=("site", "run", str(folder.path)),
        environment=child_environment(folder.flower_home),
        log=folder.logs / "run.log",
    ).start()
    started = False
    try:
        _wait_until_running(folder, child, progress)
        started = True
    finally:
        if not started and child.poll() is None:
            child.terminate()
    return child


def _wait_until_running(folder: SiteFolder, child: "subprocess.Popen[bytes]", progress: Progress) -> None:
    began = time.monotonic()
    while not is_running(folder):
        waited = time.monotonic() - began
        if child.poll() is not None or waited > _START_LIMIT_S:
            status = read_status(folder)
            code = status.code if status is not None else ""
            cause = f" {status.what}" if status is not None and code else ""
            raise CannotDoHereError(
                "site.not-started",
                f"The site's processes could not be started.{cause}",
                "Run the check; logs/run.log in the site's folder says more.",
            )
        progress.update(min(0.9, waited / 10.0), "starting the site")
        time.sleep(_LOOK_S)
    progress.update(1.0, "started")


def stop(folder: SiteFolder, progress: Progress) -> bool:
    """End the site's processes, whoever started them; False if none ran. A round in training is given up.

    Raises:
        CannotDoHereError: ``site.still-running``.
        CancelledError: cancelled; they end all the same.
    """
    status = read_status(folder)
    if status is None or not is_running(folder):
        return False
    try:
        psutil.Process(status.pid).terminate()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied as error:
        raise _still_running() from error
    began = time.monotonic()
    while is_running(folder):
        waited = time.monotonic() - began
        if waited > _STOP_LIMIT_S:
            raise _still_running()
        progress.update(min(0.9, waited / 10.0), "ending the site's processes")
        time.sleep(_LOOK_S)
    progress.update(1.0, "ended")
    return True


def _still_running() -> CannotDoHereError:
    return CannotDoHereError(
        "site.still-running",
        "The site did not stop.",
        "Stop it again, or end its process; it will not come back.",
    )
