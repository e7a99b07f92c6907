"""Keeps a site's trainer running: starts it, starts it again, and knows why it cannot work where it said so."""

import json
import os
import subprocess
import time
from dataclasses import replace

from FedSegCore.common.errors import CannotDoHereError, FedSegError
from FedSegCore.common.files import write_json
from FedSegCore.common.huge_pages import with_huge_pages
from FedSegCore.federation.process_group import Restarts, stop_trees
from FedSegCore.federation.site.children import site_child
from FedSegCore.federation.site.control import known_control, wanted_device
from FedSegCore.federation.site.folder import SiteFolder

# a driver that is being renewed, a card lent to another; a disk that was full for a night
_MAY_PASS = ("device.unavailable", "site.computer")
NO_ROOM_EXIT = 76
"""How a trainer ends that finds no room on the disk, where it could not write that down either."""

_PAUSE_S = 60.0
_MAX_TEXT = 1000


def wanted_settings(folder: SiteFolder) -> tuple[str, int | None]:
    """Return device and threads that the trainer shall have; None leaves the threads to the libraries."""
    threads, free = folder.settings().threads, known_control(folder).cores_free
    if threads is None and free:
        threads = max(1, (os.cpu_count() or 1) - free)
    return wanted_device(folder), threads


def keep_trouble(folder: SiteFolder, error: FedSegError) -> None:
    """Write down, in the trainer's process, why it ends; raises OSError where that cannot be written."""
    write_json(folder.trainer_trouble, {"code": error.code, "what": error.what, "remedy": error.remedy}, private=True)


def known_trouble(folder: SiteFolder) -> FedSegError | None:
    """Return why the trainer ended; None where it did not say."""
    try:
        told = json.loads(folder.trainer_trouble.read_bytes())
        code, what, remedy = (str(told[key])[:_MAX_TEXT] for key in ("code", "what", "remedy"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return CannotDoHereError(code, what, remedy)


def _no_room() -> FedSegError:
    return CannotDoHereError(
        "site.computer",
        "This computer cannot start what the site needs (no room on its disk).",
        "Make room on its disk, or close other programs; the site goes on trying.",
    )


class TrainerKeeper:
    """Looks after the trainer's process; the owner calls ``keep`` a few times a second.

    Attributes:
        process: the trainer, also one that has ended; None where none shall run.
        trouble: why the trainer does not work now, in its own words; None where nothing is known.
        given_up: why it is not started any more; None while it is.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.trouble: FedSegError | None = None
        self.given_up: FedSegError | None = None
        self._folder = folder
        self._starts = Restarts()
        self._settings: tuple[str, int | None] | None = None
        self._try_again: float | None = None

    def start(self) -> None:
        """Start it; raises OSError where this computer cannot."""
        self._folder.trainer_trouble.unlink(missing_ok=True)
        self._settings, self._try_again = wanted_settings(self._folder), None
        child = site_child(self._folder, "trainer", "trainer_process", threads=self._settings[1])
        self.process = replace(child, environment=with_huge_pages(child.environment)).start()
        self._starts.started()

    def forget(self) -> None:
        """Know nothing more of a trainer that was stopped."""
        self._folder.forget_trainer()
        self.process = self.trouble = self._try_again = None

    def keep(self, idle: bool) -> list[str]:
        """Start what is missing and return what there is to tell people, in words.

        Args:
            idle: nothing is being trained: a trainer that shall compute elsewhere may be started again.
        """
        if self.process is None:
            self.start()
            return ["the trainer is starting"]
        if idle and self._settings != wanted_settings(self._folder):
            stop_trees([self.process])
            self.forget()
            self.start()
            return ["the trainer is started again with the new settings"]
        code = self.process.poll()
        if code is not None:
            return self._after_its_end(code)
        if self.trouble is not None and self._folder.trainer_address.exists():
            self.trouble = None
        return []

    def _after_its_end(self, code: int) -> list[str]:
        if self._try_again is not None:
            if time.monotonic() >= self._try_again:
                self.start()
            return []
        self._folder.forget_trainer()
        before, self.trouble = self.trouble, _no_room() if code == NO_ROOM_EXIT else known_trouble(self._folder)
        if self.trouble is not None and self.trouble.code in _MAY_PASS:
            self._try_again = time.monotonic() + _PAUSE_S
            known = before is not None and before.code == self.trouble.code
            return [] if known else [f"the trainer cannot work: {self.trouble.what}"]
        if self._starts.exhausted():
            self.given_up = self.trouble or CannotDoHereError(
                "site.trainer", "The trainer ended again and again.", "Read logs/trainer.log in its folder."
            )
            return ["the trainer cannot be kept running"]
        self.start()
        return [f"the trainer ended (code {code}) and is started again"]
