"""The See tab: shows what SeeLogic tells and hands it what the user wants."""

import html

import ctk
import slicer
from slicer.i18n import tr as _

from .Errors import UserError
from .JsonRpcClient import Progress
from .Parameters import FedSegSlicerParameterNode, ModalityChoice
from .QtTimer import callLater
from .SeeAgain import SeeAgain
from .SeeGrid import SeeGrid, pixmapOf
from .SeeLogic import SeeLogic
from .SeePictures import drawHistograms
from .SeeTypes import GinSettings, Look, SeeState
from .SeeViews import SampleViews, pointInView
from .SeeWords import legendWords, measureWords, seenAsWords, settingsWords
from .Settings import SITE_FOLDER, readSetting, writeSetting
from .Signal import Signal
from .VolumeExchange import checkVolume

PATIENCE_MS = 400
"""How long the settings must rest before new samples are made."""


class SeeTab:
    """Drives the widgets of the See tab; ``siteChosen(str)`` tells that another site's folder was chosen.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: what does the work.
        views: the main window's slice views.
    """

    def __init__(self, ui: object, logic: SeeLogic, views: SampleViews) -> None:
        self.ui = ui
        self.logic = logic
        self.views = views
        self.siteChosen = Signal()
        self._parameters: FedSegSlicerParameterNode | None = None
        self._parametersObserver: int | None = None
        self._look: Look | None = None
        self._isLive = False
        self._changes = 0
        self._error: UserError | None = None
        self._pictureError: UserError | None = None
        self._isFilling = False
        self._isEntered = False
        self._grid = SeeGrid(ui, logic)
        self._again = SeeAgain(ui, logic, self._tell)
        self._prepareWidgets()
        self._connect()
        self._update()

    def setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        """Follow these parameters; None while the scene is closed."""
        if self._parameters is not None:
            self._parameters.RemoveObserver(self._parametersObserver)
        self._parameters = parameters
        if parameters is not None:
            self._parametersObserver = parameters.AddObserver("ModifiedEvent", self._onParameters)
        self._onParameters()

    def refresh(self) -> None:
        """Look again at what may have changed while the module was not shown."""
        self._isEntered = True
        if self._error is not None and self._error.code.startswith("runtime."):
            self._error = None  # there may be a runtime now
        self._onParameters()

    def exit(self) -> None:
        """Give the slice views back while the module is not shown."""
        self._isEntered = False
        self._showInViews()

    def closeScene(self) -> None:
        """Let go of everything in the scene, which is about to be closed."""
        self._isLive = False
        self.views.hide()
        self.logic.clear()

    def cleanup(self) -> None:
        """End everything; the widgets are about to be destroyed."""
        self._grid.stop()
        self._changes += 1
        self.views.hide()
        self.logic.volumes.clear()
        self.logic.close()
        self.setParameters(None)

    # Set-up

    def _prepareWidgets(self) -> None:
        self.ui.seeSitePathEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.seeSitePathEdit.currentPath = readSetting(SITE_FOLDER)
        self.ui.seeTrainingCollapsibleButton.collapsed = True
        self.ui.seeViewsCheckBox.setVisible(self.views.isPossible())
        for widget in (self.ui.seeMessageLabel, self.ui.seeSamplesCollapsibleButton,
                       self.ui.seeChosenCollapsibleButton, self.ui.seeTrainingLabel, self.ui.seeKeptLabel):  # fmt: skip
            widget.setVisible(False)

    def _connect(self) -> None:
        ui = self.ui
        ui.tabWidget.connect("currentChanged(int)", lambda _index: self._showInViews())
        ui.seeShowButton.connect("clicked(bool)", self._onShow)
        ui.seeStopButton.connect("clicked(bool)", self._onStop)
        ui.seeKeepButton.connect("clicked(bool)", self._onKeep)
        ui.seeUseButton.connect("clicked(bool)", self._onUse)
        ui.seeBackButton.connect("clicked(bool)", self._onBack)
        ui.seeStrengthRange.connect("valuesChanged(double,double)", self._onStrength)
        ui.seeSliceSlider.connect("valueChanged(int)", self._onSlice)
        ui.seePictureList.connect("currentRowChanged(int)", self._onChosen)
        ui.seeSitePathEdit.connect("currentPathChanged(QString)", self._onSite)
        self.logic.changed.connect(self._onChanged)
        self.logic.progressed.connect(self._onProgress)
        self.logic.finished.connect(self._update)
        self.logic.failed.connect(self._onFailed)
        self.logic.used.connect(self._onUsed)

    # What the user does

    def _onShow(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The samples could not be made.")):
            if self._isLive:
                # The change of the seed shows new samples; here, so that it is at once.
                self._parameters.seeSeed = (self._parameters.seeSeed + 1) % 2**31
            self._isLive = True
            self._start()

    def _onStop(self, _checked: bool = False) -> None:
        self.logic.cancel()

    def _onKeep(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The sample could not be kept.")):
            try:
                kept = self.logic.keep(self._chosen())
            except UserError as error:
                self._tell(error)
                return
            self.ui.seeKeptLabel.text = _("Kept as '{name}', with all that is needed to make it again.").format(
                name=kept.GetName()
            )
            self.ui.seeKeptLabel.setVisible(True)
            self._tell(None)

    def _onUse(self, _checked: bool = False) -> None:
        self.logic.useForTraining(readSetting(SITE_FOLDER), self._settings())

    def _onBack(self, _checked: bool = False) -> None:
        self.logic.useForTraining(readSetting(SITE_FOLDER), None)

    def _onSite(self, path: str) -> None:
        writeSetting(SITE_FOLDER, path)
        self.ui.seeTrainingLabel.setVisible(False)
        self._update()
        self.siteChosen.emit(path)

    def _onStrength(self, low: float, high: float) -> None:
        if self._parameters is not None and not self._isFilling:
            modified = self._parameters.StartModify()
            self._parameters.seeStrengthLow, self._parameters.seeStrengthHigh = float(low), float(high)
            self._parameters.EndModify(modified)

    def _onSlice(self, _k: int) -> None:
        if not self._grid.isFilling:
            self._moveViews()
            self._draw()

    def _onChosen(self, _row: int) -> None:
        if not self._grid.isFilling:
            self.ui.seeKeptLabel.setVisible(False)
            self._update()

    def _onParameters(self, *_args: object) -> None:
        parameters = self._parameters
        if parameters is None:
            self._update()
            return
        self._isFilling = True
        self.ui.seeStrengthRange.setValues(parameters.seeStrengthLow, parameters.seeStrengthHigh)
        self._isFilling = False
        self.logic.volumes.setLinkedWindow(parameters.seeLinkedWindow)
        scene = self.logic.scene
        if scene is not None and parameters.seeVolume is not scene.look.volume:
            self._isLive, self._error = False, None
            self.views.hide()
            self.logic.clear()
        elif self._isLive and self._wanted() != self._look:
            self._startSoon()
        self._draw()
        self._showInViews()
        self._update()

    # Making samples

    def _settings(self) -> GinSettings:
        chosen = self._parameters
        return GinSettings(
            chosen.seeStrengthLow,
            chosen.seeStrengthHigh,
            round(chosen.seeLayers),
            chosen.seeKernels.sizes(),
            chosen.seePerBatch,
        )

    def _wanted(self) -> Look:
        """Return what is to be looked at; the slice stays where it is once samples of this volume are there."""
        chosen = self._parameters
        scene = self.logic.scene
        isSame = self._look is not None and scene is not None and scene.look.volume is chosen.seeVolume
        return Look(
            chosen.seeVolume,
            self._settings(),
            chosen.seeSamples,
            chosen.seeSeed,
            None if chosen.seeModality is ModalityChoice.AUTO else chosen.seeModality.value,
            chosen.seeReference,
            self._look.around if isSame else None,
        )

    def _startSoon(self) -> None:
        self._changes += 1
        number = self._changes

        def start() -> None:
            if number == self._changes and self._isLive and self._parameters is not None:
                self._start()

        callLater(PATIENCE_MS, start)

    def _start(self) -> None:
        self._changes += 1
        self._error = None
        self.ui.seeKeptLabel.setVisible(False)
        look = self._wanted()
        point = self._point() or pointInView(look.volume)
        self._look = Look(**{**vars(look), "around": point})
        try:
            self.logic.show(self._look)
        except UserError as error:
            self._error = error
        self._update()

    def _point(self) -> tuple[float, float, float] | None:
        """Return the middle of the slice that is shown (RAS mm)."""
        scene = self.logic.scene
        if scene is None or scene.look.volume is not self._parameters.seeVolume:
            return None
        k = self.ui.seeSliceSlider.value - scene.first
        _slices, rows, columns = scene.original.array.shape[:3]
        middle = ((columns - 1) / 2, (rows - 1) / 2, k, 1.0)
        lps = [sum(a * b for a, b in zip(row, middle, strict=True)) for row in scene.original.ijkToLPS[:3]]
        return -lps[0], -lps[1], lps[2]

    # What the logic tells

    def _onChanged(self) -> None:
        self._grid.fillSlices()
        self._draw()
        self._showInViews()
        self._update()

    def _onProgress(self, progress: Progress) -> None:
        self.ui.seeProgressBar.value = round(1000 * progress.fraction)
        self.ui.seeProgressLabel.text = progress.stage[:1].upper() + progress.stage[1:] + "…"

    def _onFailed(self, error: UserError) -> None:
        self._tell(None if error.isCancelled else error)

    def _tell(self, error: UserError | None) -> None:
        self._error = error
        self._update()

    def _onUsed(self, site: str, settings: GinSettings | None) -> None:
        words = (
            _("From the next round on, {site} trains with {settings}, if its federation lets sites choose.").format(
                site=site, settings=settingsWords(settings)
            )
            if settings is not None
            else _("From the next round on, {site} trains with its federation's settings.").format(site=site)
        )
        self.ui.seeTrainingLabel.text = words + " " + _("The site's journal says so.")
        self.ui.seeTrainingLabel.setVisible(True)
        self._tell(None)

    # What is shown

    def _update(self) -> None:
        running = self.logic.state is SeeState.RUNNING
        reason = self._reasonNotReady()
        ui = self.ui
        ui.seeShowButton.text = _("New samples") if self._isLive else _("Show samples")
        ui.seeShowButton.enabled = not reason
        ui.seeShowButton.toolTip = reason or (
            _("Draw other samples: the next seed.") if self._isLive else _("Show what training does to this image.")
        )
        ui.seeStopButton.enabled = running
        ui.seeStopButton.toolTip = _("Stop; what is there stays.") if running else _("Nothing is being computed.")
        ui.seeProgressBar.setVisible(running)
        if not running:
            ui.seeProgressBar.value = 0
            ui.seeProgressLabel.text = reason
        self._showChosen()
        problem = self._error or self._pictureError
        ui.seeProgressLabel.setVisible((running or bool(reason)) and problem is None)
        ui.seeMessageLabel.setVisible(problem is not None)
        if problem is not None:
            ui.seeMessageLabel.text = (
                f"<b>{html.escape(problem.cause)}</b><br>{html.escape(problem.remedy)}"
                f"<br><small>{html.escape(problem.code)}</small>"
            )
        scene = self.logic.scene
        ui.seeModalityLabel.text = seenAsWords(scene) if scene is not None else ""
        ui.seeModalityLabel.setVisible(scene is not None)
        ui.seeSamplesCollapsibleButton.setVisible(scene is not None)
        self._updateTraining()
        self._again.update(self._parameters.seeVolume if self._parameters is not None else None)

    def _reasonNotReady(self) -> str:
        volume = self._parameters.seeVolume if self._parameters is not None else None
        try:
            checkVolume(volume)
        except UserError as error:
            return _("Choose a volume to look at.") if volume is None else f"{error.cause} {error.remedy}"
        return ""

    def _updateTraining(self) -> None:
        site = readSetting(SITE_FOLDER)
        reason = "" if site else _("Choose your site's folder first.")
        useReason = reason or self._reasonUse()
        self.ui.seeUseButton.enabled = not useReason
        self.ui.seeUseButton.toolTip = useReason or _(
            "This site's own training draws samples like these from the next round on; its journal says so."
        )
        self.ui.seeBackButton.enabled = not reason
        self.ui.seeBackButton.toolTip = reason or _("This site trains as its federation says.")

    def _reasonUse(self) -> str:
        return "" if self._isLive else _("Look at samples first.")

    def _draw(self) -> None:
        self._grid.draw(self._parameters.seeSegmentation if self._parameters is not None else None)

    def _chosen(self) -> int:
        return self.ui.seePictureList.currentRow - 1

    def _showChosen(self) -> None:
        self._pictureError = None
        scene, sample = self.logic.scene, self.logic.samples.get(self._chosen())
        isThere = scene is not None and sample is not None
        self.ui.seeChosenCollapsibleButton.setVisible(isThere)
        if not isThere:
            return
        self.ui.seeMeasuresLabel.text = measureWords(sample, scene)
        try:
            curves = drawHistograms(scene.histogram, sample.histogram, scene.referenceHistogram)
            self.ui.seeHistogramLabel.setPixmap(pixmapOf(curves, self.logic.folder()))
        except UserError as error:
            self._pictureError = error
        self.ui.seeLegendLabel.text = legendWords(scene.referenceHistogram is not None)
        reason = (
            "" if sample.isWhole else _("Only some slices of this sample are there so far; the rest is on its way.")
        )
        self.ui.seeKeepButton.enabled = not reason
        self.ui.seeKeepButton.toolTip = reason or _(
            "Keep this sample as a volume of the scene; how it was made is saved with it."
        )

    # The slice views

    def _showInViews(self) -> None:
        scene, chosen = self.logic.scene, self._parameters
        isHere = self._isEntered and self.ui.tabWidget.currentWidget() == self.ui.seeTab
        if chosen is None or not chosen.seeInViews or not isHere:
            self.views.hide()
            return
        if self.views.isLeft():
            chosen.seeInViews = False
            return
        isComplete = scene is not None and len(self.logic.samples) == scene.look.samples
        if isComplete and self.views.show(self.logic.volumes.nodes()):
            callLater(0, self._settleViews)

    def _settleViews(self) -> None:
        self.views.settle()
        self._moveViews()

    def _moveViews(self) -> None:
        point = self._point() if self._parameters is not None else None
        if point is not None:
            self.views.jumpTo(point)
