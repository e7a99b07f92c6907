"""Notices releases that the coordinator sent to the site, and puts them where Segment looks for models."""

import re
from pathlib import Path
from typing import Any

from .Errors import UserError
from .Settings import RELEASES_FOLDER, SEEN_RELEASES, SITE_FOLDER, readSetting, writeSetting
from .Signal import Signal
from .WorkerProcess import CallLater
from .WorkerSession import WorkerSession

LOOK_EVERY_MS = 3000
"""How often the site's folder of releases is listed while the module is shown."""

_RELEASE = re.compile(r".+-v[1-9][0-9]{0,8}")


class ReleaseNews:
    """Looks into the site's folder of releases while the module is shown.

    Only the list of names is read here; what is new is checked by the worker on its way into Segment's folder.

    Signals: ``arrived(str)`` a release is now among Segment's models; ``failed(UserError)``.

    Args:
        session: the worker.
        callLater: see CallLater.
    """

    def __init__(self, session: WorkerSession, callLater: CallLater) -> None:
        self.arrived, self.failed = Signal(), Signal()
        self._session, self._callLater = session, callLater
        self._isWatching = self._isBringing = False
        self._round = 0

    def watch(self, isWatching: bool) -> None:
        """Look again and again, or no more."""
        begins = isWatching and not self._isWatching
        self._isWatching = isWatching
        if begins:
            self._round += 1
            self._lookAgain(self._round)

    def look(self) -> None:
        """Bring what has come since the last look into Segment's folder."""
        site, folder = readSetting(SITE_FOLDER), readSetting(RELEASES_FOLDER)
        new = [path for path in arrivedAt(site) if path.name not in self._seen(site)]
        if not new or self._isBringing:
            return
        if not folder or Path(folder) == new[0].parent:
            for path in new:
                self._tell(site, path.name)
        else:
            self._bring(site, new[0], folder)

    def _bring(self, site: str, path: Path, folder: str) -> None:
        self._isBringing = True

        def brought(_told: dict[str, Any]) -> None:
            self._isBringing = False
            self._tell(site, path.name)
            self.look()

        def failed(error: UserError) -> None:
            self._isBringing = False
            if not error.code.startswith(("worker.", "runtime.")):
                self._note(site, path.name)  # it will not become better; without a worker it is tried again
                self.failed.emit(error)

        params = {"site": site, "source": str(path), "releases": folder}
        self._session.request("site.release", params, brought, failed)

    def _tell(self, site: str, release: str) -> None:
        self._note(site, release)
        self.arrived.emit(release)

    def _seen(self, site: str) -> list[str]:
        known, _, releases = readSetting(SEEN_RELEASES).partition("|")
        return releases.split("|") if known == site else []

    def _note(self, site: str, release: str) -> None:
        writeSetting(SEEN_RELEASES, "|".join([site, *self._seen(site), release]))

    def _lookAgain(self, number: int) -> None:
        if self._isWatching and number == self._round:
            self.look()
            self._callLater(LOOK_EVERY_MS, lambda: self._lookAgain(number))


def arrivedAt(site: str) -> list[Path]:
    """Return the folders of the releases that the coordinator sent to a site, oldest first."""
    if not site:
        return []
    try:
        found = [path for path in (Path(site) / "releases").iterdir() if _RELEASE.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.stat().st_mtime)
    except OSError:
        return []
