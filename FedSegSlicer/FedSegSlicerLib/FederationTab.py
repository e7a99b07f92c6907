"""The Federation tab: shows what FederationLogic tells and hands it what the user wants."""

import shutil
from pathlib import Path

import ctk
import qt
from slicer.i18n import tr as _

from .Buttons import offerButton
from .CohortPanel import CohortPanel
from .Errors import UserError
from .FederationLogic import FederationLogic
from .FederationWords import errorWords, fingerprintWords, invitationWords, progressWords, stateWords
from .JsonRpcClient import Progress
from .Parameters import FedSegSlicerParameterNode
from .RecordsPanel import RecordsPanel
from .ReleaseNews import ReleaseNews
from .SaveDialog import askFileToWrite
from .Settings import SITE_FOLDER, forgetSite, readSetting, writeSetting
from .Signal import Signal
from .Tables import fitTable, prepareTable
from .TrainingPanel import TrainingPanel


class FederationTab:
    """Drives the widgets of the Federation tab.

    Signals: ``siteChosen(str)`` another site's folder was chosen, or the site there was made or deleted;
    ``released(str)`` a model was taken in; ``arrived(str)`` the coordinator has sent one.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what asks the worker.
    """

    def __init__(self, ui: object, logic: FederationLogic) -> None:
        self.ui = ui
        self.logic = logic
        self.siteChosen, self.released, self.arrived = Signal(), Signal(), Signal()
        self.news = ReleaseNews(logic.session, logic.callLater)
        self._parameters: FedSegSlicerParameterNode | None = None
        self._observer: int | None = None
        self._isEntered = self._isShown = False
        self._message = ""
        self._toldIn: str | None = None
        self._isOfRuntime = False
        self._wasMember: bool | None = None
        self._shownCheck: object = None
        self.cohort = CohortPanel(ui, logic)
        self.training = TrainingPanel(ui, logic)
        self.records = RecordsPanel(ui, logic)
        self._prepareWidgets()
        self._connect()
        self._update()

    def setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        """Follow these parameters; None while the scene is closed."""
        if self._parameters is not None:
            self._parameters.RemoveObserver(self._observer)
        self._parameters = parameters
        if parameters is not None:
            self._observer = parameters.AddObserver("ModifiedEvent", lambda *_args: self.cohort.update())
        self.cohort.setParameters(parameters)

    def refresh(self) -> None:
        """Look again at what may have changed while the module was not shown."""
        self._isEntered = True
        if self._isOfRuntime:  # there may be a runtime now; if not, that is told again
            self._message, self._isOfRuntime = "", False
            self._update()
        self.news.watch(True)
        folder = readSetting(SITE_FOLDER)
        if folder and folder != self.ui.fedSitePathEdit.currentPath:
            self.ui.fedSitePathEdit.currentPath = folder
        self._watch()

    def exit(self) -> None:
        """Look no more while the module is not shown; the site goes on."""
        self._isEntered = False
        self.news.watch(False)
        self._watch()

    def closeScene(self) -> None:
        """Let go of everything in the scene, which is about to be closed."""
        self.training.plots.clear()

    def cleanup(self) -> None:
        """End everything here; the site's own processes go on."""
        self.news.watch(False)
        self.logic.changed.disconnect(self._update)
        self.setParameters(None)
        self.training.cleanup()
        self.records.cleanup()
        self.logic.close()

    # Set-up

    def _prepareWidgets(self) -> None:
        ui = self.ui
        ui.fedSitePathEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.fedInvitationPathEdit.filters = ctk.ctkPathLineEdit.Files
        prepareTable(ui.fedCheckTable, 1)
        for button in (ui.fedCheckCollapsibleButton, ui.fedJournalCollapsibleButton, ui.fedReleaseCollapsibleButton):
            button.collapsed = True

    def _connect(self) -> None:
        ui = self.ui
        ui.tabWidget.connect("currentChanged(int)", lambda _index: self._watch())
        ui.fedSitePathEdit.connect("currentPathChanged(QString)", self._onSite)
        ui.fedInvitationPathEdit.connect("currentPathChanged(QString)", self._onInvitation)
        ui.fedNameLineEdit.connect("textChanged(QString)", lambda _text: self._updateJoining())
        ui.fedJoinButton.connect("clicked(bool)", self._onJoin)
        ui.fedCopyButton.connect("clicked(bool)", self._onCopy)
        ui.fedSaveRequestButton.connect("clicked(bool)", self._onSaveRequest)
        ui.fedCheckButton.connect("clicked(bool)", lambda _on: self.logic.checkSite())
        ui.fedCancelButton.connect("clicked(bool)", lambda _on: self.logic.cancel())
        self.logic.changed.connect(self._update)
        self.logic.progressed.connect(self._onProgress)
        self.logic.failed.connect(self._onFailed)
        self.logic.told.connect(self._onTold)
        self.logic.released.connect(self.released.emit)
        self.logic.forgotten.connect(forgetSite)
        self.news.arrived.connect(self._onArrived)
        self.news.failed.connect(self._onFailed)

    def _watch(self) -> None:
        wasShown = self._isShown
        isShown = self._isShown = self._isEntered and self.ui.tabWidget.currentWidget() == self.ui.federationTab
        if isShown and not self.ui.fedSitePathEdit.currentPath:
            self.ui.fedSitePathEdit.currentPath = usualFolder()
        if isShown:
            self.logic.setSite(self.ui.fedSitePathEdit.currentPath)
            if not wasShown:
                self.records.readAgain()
        self.logic.watch(isShown)

    # What the user does

    def _onSite(self, path: str) -> None:
        self._message = ""
        self._wasMember = None
        self.logic.setSite(path)
        self._update()

    def _onInvitation(self, path: str) -> None:
        self._message = ""
        if path and Path(path).is_file():
            self.logic.openInvitation(path)
        else:
            self.logic.invitation = None
            self._update()

    def _onJoin(self, _checked: bool = False) -> None:
        self._message = ""
        self.logic.join(self.ui.fedNameLineEdit.text.strip(), self.ui.fedToldLineEdit.text)

    def _onCopy(self, _checked: bool = False) -> None:
        qt.QApplication.clipboard().setText(self.logic.facts.member["fingerprint"])
        self._onTold(_("The fingerprint is on the clipboard."))

    def _onSaveRequest(self, _checked: bool = False) -> None:
        path = askFileToWrite(_("Save the request"), "join-request", ["JSON (*.json)"])
        if path is not None:
            self.saveRequestTo(path)

    def saveRequestTo(self, path: Path) -> None:
        """Write the request to a file and say how that went."""
        try:
            shutil.copyfile(self.logic.facts.member["request"], path)
        except OSError:
            words = _("The request could not be written there."), _("Choose another folder.")
            self._onFailed(UserError("disk.full", *words))
        else:
            self._onTold(_("Saved as {name}. Send it to the coordinator.").format(name=path.name))

    # What the logic tells

    def _onProgress(self, progress: Progress) -> None:
        self.ui.fedProgressBar.value = round(1000 * progress.fraction)
        if not self.logic.isCancelling():
            self.ui.fedProgressLabel.text = progressWords(progress)

    def _onFailed(self, error: UserError) -> None:
        self._message = "" if error.isCancelled else errorWords(error)
        self._isOfRuntime = error.code.startswith("runtime.")
        self._toldIn = None
        self._update()

    def _onTold(self, words: str) -> None:
        self._message, self._isOfRuntime = words, False
        self._toldIn = self.logic.facts.state if self.logic.facts is not None else None
        self._update()

    def _dropOldMessage(self, state: str) -> None:
        """What was told in another state is no news any more; an error stays until something else is done."""
        if self._toldIn not in (None, state):
            self._message, self._toldIn = "", None

    def _onArrived(self, release: str) -> None:
        self.records.told(release)
        self.arrived.emit(release)

    # What is shown

    def _update(self) -> None:
        ui, facts, doing = self.ui, self.logic.facts, self.logic.doing
        isMember = facts is not None and facts.member is not None
        if facts is not None:
            self._dropOldMessage(facts.state)
        seenAt, unknown = self.logic.seenAt, self.logic.unknown
        ui.fedStateLabel.text = stateWords(facts, seenAt, unknown) if facts is not None else _("Looking at the site…")
        self._showProgress(doing)
        ui.fedMessageLabel.setVisible(bool(self._message))
        ui.fedMessageLabel.text = self._message
        self._showSections(isMember)
        self._updateJoining()
        if isMember:
            ui.fedFingerprintLabel.text = fingerprintWords(facts.member["fingerprint"])
            ui.fedRequestLabel.text = _(
                "Send the coordinator the request, and read this fingerprint out on the telephone:"
            )
            offerButton(
                ui.fedSaveRequestButton,
                _("Save the file that the coordinator needs; it holds no secret."),
                ""
                if facts.member["request"]
                else _("This site was set up without an invitation: there is no request."),
            )
        self._showCheck()
        self.cohort.update()
        self.training.update()
        self.records.update()

    def _showProgress(self, doing: str) -> None:
        ui, isCancelling = self.ui, self.logic.isCancelling()
        for widget in (ui.fedProgressBar, ui.fedProgressLabel, ui.fedCancelButton):
            widget.setVisible(bool(doing))
        ui.fedProgressLabel.text = _("Cancelling…") if isCancelling else doing
        if not doing:
            ui.fedProgressBar.value = 0
        offerButton(
            ui.fedCancelButton,
            _("Give up what is being done; what was done before stays."),
            _("It is being given up.") if isCancelling else "",
        )

    def _showSections(self, isMember: bool) -> None:
        """Show what fits the state; whoever has just joined, or was admitted before, sees other parts."""
        ui, facts = self.ui, self.logic.facts
        ui.fedJoinCollapsibleButton.setVisible(facts is not None and (not isMember or facts.isOut))
        ui.fedRequestCollapsibleButton.setVisible(isMember and facts.state == "request-sent")
        for section in (ui.fedCheckCollapsibleButton, ui.fedCohortCollapsibleButton, ui.fedAddCollapsibleButton,
                        ui.fedTrainingCollapsibleButton, ui.fedReleaseCollapsibleButton):  # fmt: skip
            section.setVisible(isMember)
        ui.fedJournalCollapsibleButton.setVisible(facts is not None and facts.hasJournal)
        if facts is not None:
            self._followMembership(isMember)

    def _followMembership(self, isMember: bool) -> None:
        wasMember, self._wasMember = self._wasMember, isMember
        isRemembered = readSetting(SITE_FOLDER) == self.logic.site
        if isMember and not wasMember and not isRemembered:
            # Only what is a site is remembered, so that a mistyped folder is not.
            writeSetting(SITE_FOLDER, self.logic.site)
            self.siteChosen.emit(self.logic.site)
        elif isRemembered and wasMember not in (None, isMember):  # it was deleted here, or has joined again
            self.siteChosen.emit(self.logic.site)

    def _updateJoining(self) -> None:
        ui, invitation = self.ui, self.logic.invitation
        for widget in (ui.fedInvitationLabel, ui.fedPolicyCollapsibleButton):
            widget.setVisible(invitation is not None)
        if invitation is not None:
            ui.fedInvitationLabel.text = invitationWords(invitation)
            ui.fedPolicyLabel.text = "\n".join(invitation["policy"])
        facts = self.logic.facts
        isBack = facts is not None and facts.isShutOut
        ui.fedNameLineEdit.enabled = not isBack
        if isBack and ui.fedNameLineEdit.text != facts.member["name"]:
            ui.fedNameLineEdit.setText(facts.member["name"])  # a site that comes back keeps its name
        offerButton(
            ui.fedJoinButton,
            _("Make this site's key; it never leaves this computer."),
            _("Delete everything of the former federation below, or choose another folder above.")
            if facts is not None and facts.state == "left"
            else "",
            _("Open the invitation first.") if invitation is None else "",
            "" if ui.fedNameLineEdit.text.strip() else _("Give your site a name."),
            self.logic.reasonToWait(),
        )

    def _showCheck(self) -> None:
        ui = self.ui
        offerButton(
            ui.fedCheckButton,
            _("Finds out what keeps this site from taking part, and what cures it."),
            self.logic.reasonToWait(),
        )
        told = self.logic.check
        ui.fedCheckTable.setVisible(told is not None)
        ui.fedCheckLabel.setVisible(told is not None)
        if told is None or told is self._shownCheck:
            return
        self._shownCheck = told
        ui.fedCheckLabel.text = (
            _("The site can take part.") if told["ready"] else _("Something keeps the site from taking part:")
        )
        self.records.fillCheck(ui.fedCheckTable, told["findings"])
        fitTable(ui.fedCheckTable)


def usualFolder() -> str:
    """Return where a site is kept if the user says nothing else."""
    return str(Path.home() / ".fedseg" / "site")
