"""How a site's processes stand, in a file that others read: also after they have ended."""

import json
import os
from enum import StrEnum
from typing import Annotated

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.files import write_text
from FedSegCore.common.locks import is_locked
from FedSegCore.federation.site.folder import SiteFolder

_CLOCK_S = 2.0
_MAX_TEXT = 1000

Text = Annotated[str, Field(max_length=_MAX_TEXT)]


class ProcessesState(StrEnum):
    """How a site's processes stand."""

    STARTING = "starting"
    CONNECTED = "connected"
    RETRYING = "retrying"
    PAUSED = "paused"
    ENDED = "ended"


class SiteStatus(BaseModel):
    """What the process that looks after a site last wrote.

    Attributes:
        pid: that process.
        started: when it began (seconds since the epoch), so that a later process of the same id is not taken for it.
        processes: ``ProcessesState`` of the site's processes.
        was_connected: whether the coordinator ever let this site in.
        last_message: when the last message came (seconds since the epoch); None if none did.
        code: of what keeps the site from taking part; empty if nothing does.
        what: the same in words.
        remedy: what to do about it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    started: float
    processes: str
    was_connected: bool = False
    last_message: float | None = None
    code: Text = ""
    what: Text = ""
    remedy: Text = ""

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it still runs, by the clock as it was; see ``is_looked_after``."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < _CLOCK_S
        except psutil.Error:
            return False


def read_status(folder: SiteFolder) -> SiteStatus | None:
    """Return what was written last, None if nothing readable was."""
    try:
        return SiteStatus.model_validate_json(folder.status_file.read_bytes())
    except (OSError, ValidationError):
        return None


def write_status(folder: SiteFolder, status: SiteStatus) -> None:
    """Write it whole."""
    write_text(folder.status_file, json.dumps(status.model_dump(mode="json")) + "\n", private=True)


def is_running(folder: SiteFolder) -> bool:
    """Return whether another process than this one looks after the site, or this one does."""
    status = read_status(folder)
    return status is not None and is_looked_after(folder, status)


def is_looked_after(folder: SiteFolder, status: SiteStatus) -> bool:
    """Return whether the process that wrote ``status`` still looks after the site.

    Where the clock was set since it began, the system tells another start of the same process: then its lock counts.
    """
    return status.processes != ProcessesState.ENDED and (status.alive or is_locked(folder.process_lock))


def this_process() -> tuple[int, float]:
    """Return id and start (seconds since the epoch) of this process."""
    return os.getpid(), psutil.Process().create_time()
