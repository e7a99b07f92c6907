"""What the Federation tab does, without Qt: asks the worker about a site of a federation, and tells what it said."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .CaseHandover import CaseHandover
from .Errors import UserError
from .FederationTypes import CaseOffer, SiteFacts, consentOf
from .FederationWords import folderWords, roleWords
from .SegmentExport import SegmentExport
from .Signal import Signal
from .VolumeExchange import VolumeExchange
from .WorkerProcess import CallLater
from .WorkerSession import Request, WorkerSession, cancelledError

LOOK_EVERY_MS = 2000
"""How often the site's state is looked at while the tab is shown."""

MAY_MISS = 1
"""Looks in a row without an answer that are not told: a worker that was ended is there again at the next one."""


class FederationLogic:
    """Shows and calls the core's functions for a site; nothing waits, nothing is decided here.

    Signals: ``changed()`` something below is new; ``progressed(Progress)``; ``failed(UserError)``;
    ``told(str)`` something was done, in words; ``released(str)`` a release was taken in; ``forgotten(str)`` the site of
    this folder was deleted.

    Attributes:
        facts: how the site stands, None until it is known.
        seenAt: when that was told, seconds since the epoch.
        unknown: why it is not known any more, None while it is.
        invitation: the opened invitation in words, None without one.
        check: the findings of the last check, None before it.
        cohort: the site's cases, None until they are known.
        offer: what was found in the case that was last checked, None before.
        doing: what is being done, in words, ``""`` for nothing.

    Args:
        session: the worker.
        exchange: files to the worker for images.
        callLater: see CallLater.

    >>> logic.setSite("/folder/of/the/site")
    >>> logic.start()
    """

    def __init__(self, session: WorkerSession, exchange: VolumeExchange, callLater: CallLater) -> None:
        self.session = session
        self.changed, self.progressed, self.failed = Signal(), Signal(), Signal()
        self.told, self.released, self.forgotten = Signal(), Signal(), Signal()
        self.site = ""
        self.invitationFile = ""
        self.doing = ""
        self.callLater = callLater
        self._handover = CaseHandover(exchange, SegmentExport(session, callLater))
        self._request: Request | None = None
        self._number = 0
        self._isWatched = self._isLooking = False
        self._watching = 0
        self._forget()

    # The site

    def setSite(self, site: str) -> None:
        """Look at another site's folder, which need not exist yet; what is being done for the former is cancelled."""
        if site == self.site:
            return
        self.cancel()
        self.site = site
        self._number += 1
        self._handover.drop()
        self._end()
        self._forget()
        self.changed.emit()
        self.look()

    def watch(self, isWatched: bool) -> None:
        """Look at the site again and again, or no more."""
        begins = isWatched and not self._isWatched
        self._isWatched = isWatched
        if begins:
            self._watching += 1
            self._lookAgain(self._watching)

    def look(self) -> None:
        """Ask how the site stands, unless that is being asked already."""
        if not self.site or self._isLooking:
            return
        self._isLooking = True
        number = self._number

        def seen(told: dict[str, Any]) -> None:
            self._isLooking = False
            if number == self._number:
                self._take(told)

        def notSeen(error: UserError) -> None:
            self._isLooking = False
            if number == self._number:
                self._missed += 1
                if self.facts is None:
                    self.failed.emit(error)
                elif self._missed > MAY_MISS:
                    self.unknown = error
                    self.changed.emit()

        self.session.request("site.state", {"site": self.site}, seen, notSeen)

    # Joining

    def openInvitation(self, path: str) -> None:
        """Read an invitation and tell what its federation asks for."""
        self.invitationFile = path
        self.invitation = None

        def opened(told: dict[str, Any]) -> None:
            self.invitation = told

        self._ask("site.invitation", {"invitation": path}, opened, _("Reading the invitation…"), site=False)

    def join(self, name: str, toldFingerprint: str = "") -> None:
        """Make the site's key and its request; ``toldFingerprint`` as the coordinator read it out, ``""`` for none."""
        params = {"invitation": self.invitationFile, "name": name}
        if toldFingerprint.strip():
            params["coordinator_fingerprint"] = toldFingerprint.strip()
        if self.facts is not None and self.facts.isShutOut:
            params["new_key"] = True

        def joined(_told: dict[str, Any]) -> None:
            self.told.emit(_("The site has its key. Send the request, and read out the fingerprint."))
            self.look()

        self._ask("site.join", params, joined, _("Making the site's key…"))

    def checkSite(self) -> None:
        """Find out whether the site can take part, and what cures it if it cannot."""

        def checked(told: dict[str, Any]) -> None:
            self.check = told

        self._ask("site.check", {}, checked, _("Checking connection and computer…"))

    # Cases

    def listCases(self) -> None:
        """Ask for the site's cases."""

        def listed(told: dict[str, Any]) -> None:
            self.cohort = told

        self._ask("site.cohort.list", {}, listed, _("Looking at the cases…"))

    def checkCase(self, offer: CaseOffer) -> None:
        """Say what is found in a case of the scene; nothing is added."""

        def checked(told: dict[str, Any]) -> None:
            self.offer = told

        self.offer = None
        self._offer("site.cohort.check", offer, {}, checked, _("Checking the case…"))

    def addCase(
        self, offer: CaseOffer, consentBy: str = "", day: str = "", onAdded: Callable[[], None] | None = None
    ) -> None:
        """Copy a case into the site's store; without consent it waits there.

        Args:
            offer: the case.
            consentBy: who consents to training on it.
            day: of the consent, ``YYYY-MM-DD``; today by default.
            onAdded: called once the case is in the store.
        """

        def added(told: dict[str, Any]) -> None:
            self.offer = None
            if onAdded is not None:
                onAdded()
            words = _("Added to {role}.").format(role=roleWords(told["role"]))
            waits = "" if told["consented"] else " " + _("It waits for consent and is not used yet.")
            self.told.emit(words + waits)
            self.listCases()

        self._offer("site.cohort.add", offer, consentOf(consentBy, day), added, _("Checking and copying the case…"))

    def addFolder(self, folder: str, modality: str | None, naming: dict[str, Any], by: str = "", day: str = "") -> None:
        """Copy all images of a folder that have a segmentation of their name into the site's store.

        Args:
            folder: the folder.
            modality: DICOM modality code where the user says it, else None.
            naming: as in ``CaseOffer``.
            by: who consents to training on them; without consent they wait.
            day: of the consent, ``YYYY-MM-DD``; today by default.
        """

        def added(told: dict[str, Any]) -> None:
            self.told.emit(folderWords(told))
            self.listCases()

        params = {"folder": folder, "naming": naming, **consentOf(by, day)}
        if modality is not None:
            params["modality"] = modality

        def ended(error: UserError) -> None:
            self.failed.emit(error)
            if error.isCancelled:
                self.told.emit(_("Cancelled. Cases that were added before stay."))
            self.listCases()

        self._ask("site.cohort.folder", params, added, _("Checking and copying the cases…"), onError=ended)

    def consent(self, case: str, by: str, day: str = "") -> None:
        """Note the consent to train on a case; see ``addCase``."""
        params = {"case": case, "by": by.strip(), **({"given": day} if day else {})}
        words = _("Noted. The case takes part from the next round on.")
        self._change("site.cohort.consent", params, words, _("Noting the consent…"))

    def revoke(self, case: str) -> None:
        """Take a consent back."""
        words = _("Noted. The case is in no further round; what was learned before stays in the models.")
        self._change("site.cohort.revoke", {"case": case}, words, _("Taking the consent back…"))

    def remove(self, case: str) -> None:
        """Delete the store's copy of a case."""
        words = _("The site's copy was deleted; your own images were not touched.")
        self._change("site.cohort.remove", {"case": case}, words, _("Deleting the copy…"))

    # Training

    def start(self) -> None:
        """Start the site's processes, which go on by themselves."""
        self._ask("site.run.start", {}, self._take, _("Starting the site…"))

    def stop(
        self, onDone: Callable[[], None] | None = None, onFailed: Callable[[UserError], None] | None = None
    ) -> None:
        """End the site's processes, whoever started them; call back when that is done, or could not be."""

        def stopped(told: dict[str, Any]) -> None:
            self._take(told)
            if onDone is not None:
                onDone()

        def failed(error: UserError) -> None:
            self.failed.emit(error)
            if onFailed is not None:
                onFailed(error)

        self._ask("site.run.stop", {}, stopped, _("Ending the site's processes…"), onError=failed)

    def control(self, what: str, settings: dict[str, Any] | None = None) -> None:
        """Say what the site shall do: ``pause``, ``resume``, ``leave``, ``forget``, or ``set`` with settings."""

        def done(facts: dict[str, Any]) -> None:
            if what == "forget":
                self.forgotten.emit(self.site)
            self._take(facts)
            if what == "set":
                self.told.emit(_("Saved. The site goes by these settings."))
            elif what == "forget":
                self.told.emit(_("Everything of the federation was deleted here, but for the journal."))

        params = {"what": what, "settings": settings or {}}
        self._ask("site.control", params, done, _("Telling the site…"))

    # Releases

    def importRelease(self, source: str, releases: str) -> None:
        """Take a release that the coordinator sent as a file into the folder of releases."""

        def taken(told: dict[str, Any]) -> None:
            self.released.emit(told["release"])

        params = {"source": source, "releases": releases}
        self._ask("site.release", params, taken, _("Checking the release…"))

    def cancel(self) -> None:
        """Give up what is being done: within two seconds it fails with code ``cancelled``."""
        if self._request is not None:
            self.session.cancel(self._request)
            self.changed.emit()
        elif self.doing:
            self._handover.drop()
            self._failed(self._number, cancelledError())

    def isCancelling(self) -> bool:
        """Return whether what is being done has been given up, but has not ended yet."""
        return self._request is not None and self._request.isCancelled

    def reasonToWait(self) -> str:
        """Return why nothing else can be begun at this moment, ``""`` where something can be."""
        return _("Wait until this is done: {doing}").format(doing=self.doing) if self.doing else ""

    def close(self) -> None:
        """End the worker and delete what was handed to it; the site's own processes go on."""
        self.watch(False)
        self._number += 1
        self.session.close()
        self._handover.close()

    # Asking

    def _ask(
        self,
        method: str,
        params: dict[str, Any],
        onResult: Callable[[Any], None],
        doing: str,
        site: bool = True,
        onError: Callable[[UserError], None] | None = None,
        onEnd: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask the worker; ``onResult`` and ``onError`` only while this site is shown, ``onEnd`` before them always."""
        number = self._number
        self.doing = doing
        self.changed.emit()

        def done(told: Any) -> None:
            onEnd()
            if number == self._number:
                self._end()
                onResult(told)
                self.changed.emit()

        def fail(error: UserError) -> None:
            onEnd()
            self._failed(number, error, onError)

        told = {"site": self.site, **params} if site else params
        self._request = self.session.request(method, told, done, fail, self.progressed.emit)

    def _change(self, method: str, params: dict[str, Any], words: str, doing: str) -> None:
        def changed(_told: Any) -> None:
            self.told.emit(words)
            self.listCases()

        self._ask(method, params, changed, doing)

    def _offer(
        self, method: str, offer: CaseOffer, extra: dict[str, Any], onResult: Callable[[Any], None], doing: str
    ) -> None:
        """Hand image and segmentation over, ask, and delete the segmentation's file again."""
        number = self._number

        def ask(params: dict[str, Any], labels: Path) -> None:
            def failed(error: UserError) -> None:
                self.failed.emit(error)
                if method == "site.cohort.add":  # it may be in the store all the same
                    self.listCases()

            def tidy() -> None:
                labels.unlink(missing_ok=True)

            self._ask(method, {**params, **extra}, onResult, doing, onError=failed, onEnd=tidy)

        self._handover.write(offer, ask, lambda error: self._failed(number, error))
        self.doing = doing
        self.changed.emit()

    def _failed(self, number: int, error: UserError, onError: Callable[[UserError], None] | None = None) -> None:
        if number == self._number:
            self._end()
            (onError or self.failed.emit)(error)
            self.changed.emit()

    def _end(self) -> None:
        self.doing = ""
        self._request = None

    def _take(self, told: dict[str, Any]) -> None:
        wasMember = self.facts is not None and self.facts.member is not None
        self.facts = SiteFacts.fromWorker(told)
        self.seenAt, self.unknown, self._missed = time.time(), None, 0
        if self.facts.member is None:
            self.check = self.cohort = self.offer = None
        self.changed.emit()
        if self.facts.member is not None and not wasMember:
            self.listCases()

    def _lookAgain(self, number: int) -> None:
        if self._isWatched and number == self._watching:
            self.look()
            self.callLater(LOOK_EVERY_MS, lambda: self._lookAgain(number))

    def _forget(self) -> None:
        self.facts: SiteFacts | None = None
        self.invitation: dict[str, Any] | None = None
        self.check: dict[str, Any] | None = None
        self.cohort: dict[str, Any] | None = None
        self.offer: dict[str, Any] | None = None
        self.unknown: UserError | None = None
        self.seenAt = 0.0
        self._missed = 0
