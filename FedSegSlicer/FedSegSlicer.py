"""FedSegSlicer: one click segments a scan with the newest model of a federation; images never leave the computer.

This file is thin: each tab and each duty has its own file in FedSegSlicerLib.
"""

from typing import TYPE_CHECKING

import slicer
from FedSegSlicerLib import VERSION
from FedSegSlicerLib.Parameters import FedSegSlicerParameterNode
from FedSegSlicerLib.SelfTest import FedSegSlicerTest
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from collections.abc import Callable

    from FedSegSlicerLib.JsonRpcClient import Progress
    from FedSegSlicerLib.SegmentTypes import Outcome

__all__ = ["FedSegSlicer", "FedSegSlicerLogic", "FedSegSlicerTest", "FedSegSlicerWidget"]


class FedSegSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: object) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("FedSegSlicer")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Volumes"]
        parent.contributors = ["The FedSegSlicer authors"]
        parent.helpText = _(
            "Segments CT, MR and ultrasound with models that hospitals trained together, each keeping its own images. "
            "Choose a volume and press Segment: it is computed on this computer, and nothing is sent anywhere. "
            "See shows what training does to an image. Federation takes part in training, if you want to: images stay "
            "here, and what leaves goes through your site's own gate into a journal that you can read."
        ) + _("<p>Version {version}. Not a medical device.</p>").format(version=VERSION)
        parent.acknowledgementText = _(
            "Built on 3D Slicer, MONAI, PyTorch and Flower. GIN: Ouyang et al., IEEE TMI 2023. FedGIN: arXiv "
            "2508.05137, 2025. FLAMES: Expert Systems, 2025. FedGS: DeCaF workshop at MICCAI, 2024."
        )
        slicer.app.connect("startupCompleted()", registerSamples)
        slicer.app.connect("startupCompleted()", followScene)
        slicer.app.connect("startupCompleted()", followSite)


def registerSamples() -> None:
    """Offer the sample images; called once Slicer has started."""
    from pathlib import Path

    from FedSegSlicerLib.SampleScans import registerSampleScans

    registerSampleScans(Path(__file__).parent / "Resources" / "SampleData")


def followScene() -> None:
    """Mend scenes that were saved while See showed outlines, also where the module is not opened."""
    from FedSegSlicerLib import Outlines

    Outlines.followScene(slicer.mrmlScene)


def followSite() -> None:
    """Ask at closing about a site that an earlier session left running, also where the module is not opened."""
    from FedSegSlicerLib.CloseQuestion import followRunningSite

    followRunningSite(FedSegSlicerLogic().makeFederationLogic)


class FedSegSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the user interface, and connects each tab with the scene's parameters while the module is open."""

    def __init__(self, parent: object = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.segmentTab = None
        self.seeTab = None
        self.federationTab = None
        self.closeQuestion = None
        self.runtimePanel = None
        self.tabHeights = None
        self.panelHeight = None
        self._parameters = None
        self._guiTag = None
        self._isChoosing = False

    def setup(self) -> None:
        """Make the user interface; called when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from FedSegSlicerLib.CloseQuestion import CloseQuestion
        from FedSegSlicerLib.FederationTab import FederationTab
        from FedSegSlicerLib.NodeSelectors import letKeysReach
        from FedSegSlicerLib.PanelHeight import PanelHeight
        from FedSegSlicerLib.RuntimePanel import RuntimePanel
        from FedSegSlicerLib.SeeTab import SeeTab
        from FedSegSlicerLib.SeeViews import SampleViews
        from FedSegSlicerLib.SegmentTab import SegmentTab
        from FedSegSlicerLib.TabHeights import TabHeights

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/FedSegSlicer.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        letKeysReach(each for each in vars(self.ui).values() if each.className() == "qMRMLNodeComboBox")
        self.logic = FedSegSlicerLogic()
        self.segmentTab = SegmentTab(self.ui, self.logic.makeSegmentLogic())
        self.seeTab = SeeTab(self.ui, self.logic.makeSeeLogic(), SampleViews(slicer.app.layoutManager()))
        self.federationTab = FederationTab(self.ui, self.logic.makeFederationLogic())
        self.seeTab.siteChosen.connect(lambda _site: self.segmentTab.refresh())  # whose models are trusted has changed
        self.federationTab.siteChosen.connect(self._onSite)
        self.federationTab.released.connect(self._onReleased)
        self.federationTab.arrived.connect(self._onArrived)
        self.closeQuestion = CloseQuestion(self.federationTab.logic)
        tabs = (self.segmentTab, self.seeTab, self.federationTab)
        sessions = [tab.logic.session for tab in tabs]
        installer = self.logic.makeRuntimeInstaller(sessions[0].locator)
        self.runtimePanel = RuntimePanel(self.ui, installer, sessions, self._onRuntimeChanged)
        self.tabHeights = TabHeights(self.ui.tabWidget)
        self.panelHeight = PanelHeight(uiWidget, self.parent)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._onSceneEnd)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneEnd)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self._onNodeAdded)
        self.ui.tabWidget.connect("currentChanged(int)", lambda _index: self._chooseVolumes())
        self.initializeParameterNode()
        if self.parent.isEntered:  # it was reloaded while it is shown
            self.enter()

    def cleanup(self) -> None:
        """Stop the worker and let go of the scene; called before the widget is destroyed."""
        self.removeObservers()
        self._setParameters(None)
        if self.segmentTab is not None:
            self.segmentTab.cleanup()
        if self.seeTab is not None:
            self.seeTab.cleanup()
        if self.federationTab is not None:
            self.closeQuestion.cleanup()
            self.federationTab.cleanup()
        if self.runtimePanel is not None:
            self.runtimePanel.cleanup()
        if self.panelHeight is not None:
            self.panelHeight.cleanup()
        if self.logic is not None:
            self.logic.close()

    def enter(self) -> None:
        """Follow the scene's parameters; called each time the module is shown."""
        self.initializeParameterNode()
        self.runtimePanel.refresh()
        self._onRuntimeChanged()

    def _onRuntimeChanged(self) -> None:
        self.segmentTab.refresh()
        self.seeTab.refresh()
        self.federationTab.refresh()

    def exit(self) -> None:
        """Stop following the parameters with the widgets; what runs goes on."""
        if self.federationTab is not None:
            self.federationTab.exit()
            self.seeTab.exit()
            self.segmentTab.exit()
        self._disconnectGui()

    def _disconnectGui(self) -> None:
        if self._parameters is not None and self._guiTag is not None:
            self._parameters.disconnectGui(self._guiTag)
            self._guiTag = None

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node; choose the volume the slice views show if none is chosen."""
        self._setParameters(self.logic.getParameterNode())
        self._chooseVolumes()

    def _chooseVolumes(self) -> None:
        """Where no volume is chosen, take the one the slice views show; See begins with that of Segment."""
        self._isChoosing = False
        if self._parameters is None or slicer.mrmlScene.IsBatchProcessing():
            return
        if self._parameters.inputVolume is None:
            volumeNode = self.logic.volumeInView()
            if volumeNode is not None:
                self._parameters.inputVolume = volumeNode
        if self._parameters.seeVolume is None and self._parameters.inputVolume is not None:
            self._parameters.seeVolume = self._parameters.inputVolume

    def _onNodeAdded(self, _caller: object, _event: object) -> None:
        """Choose an image that is loaded while the module is open, once it is shown."""
        from FedSegSlicerLib.QtTimer import callLater

        if self.parent.isEntered and not self._isChoosing:
            self._isChoosing = True
            callLater(0, self._chooseVolumes)

    def _setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        self._disconnectGui()
        self._parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
        if self.segmentTab is not None:
            self.segmentTab.setParameters(parameters)
        if self.seeTab is not None:
            self.seeTab.setParameters(parameters)
        if self.federationTab is not None:
            self.federationTab.setParameters(parameters)

    def _onSite(self, site: str) -> None:
        """Let the See tab use the site that was joined or found."""
        self.ui.seeSitePathEdit.currentPath = site
        self.segmentTab.refresh()  # whose models are trusted has changed

    def _onReleased(self, release: str) -> None:
        """Let Segment list a model that was taken in, also where it has had no folder of models yet."""
        self._useSiteReleases(self.federationTab.logic.site)
        self.segmentTab.refresh()
        slicer.util.showStatusMessage(_("A new model: {release}").format(release=release), 5000)

    def _onArrived(self, release: str) -> None:
        """Let Segment list and announce a model that the coordinator has sent."""
        from FedSegSlicerLib.Settings import SITE_FOLDER, readSetting

        self._useSiteReleases(readSetting(SITE_FOLDER))
        self.segmentTab.announce(release)

    def _useSiteReleases(self, site: str) -> None:
        """Let Segment look into a site's folder of models where it has had none yet."""
        from pathlib import Path

        from FedSegSlicerLib.Settings import RELEASES_FOLDER, readSetting

        if not readSetting(RELEASES_FOLDER):
            self.ui.releasesPathEdit.currentPath = str(Path(site) / "releases")

    def _onSceneStartClose(self, _caller: object, _event: object) -> None:
        self.segmentTab.closeScene()
        self.seeTab.closeScene()
        self.federationTab.closeScene()
        self._setParameters(None)

    def _onSceneEnd(self, _caller: object, _event: object) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()


class FedSegSlicerLogic(ScriptedLoadableModuleLogic):
    """What scripts and the widget share.

    In a script or notebook inside Slicer::

        logic = slicer.util.getModuleLogic("FedSegSlicer")
        outcome = logic.segment(volumeNode, "/folder/of/models", progress=print)
        logic.close()
    """

    _script = None

    def segment(
        self,
        volumeNode: "slicer.vtkMRMLScalarVolumeNode",
        releasesFolder: str = "",
        release: str = "",
        modality: str = "",
        device: str = "auto",
        progress: "Callable[[Progress], object] | None" = None,
    ) -> "Outcome":
        """Segment a volume and wait for the result, while Slicer's events go on; the worker stays for the next one.

        Args:
            volumeNode: what to segment.
            releasesFolder: folder of models; empty for the one chosen under Settings.
            release: a model's name, with or without version; empty for the newest that fits.
            modality: ``"CT"``, ``"MR"``, ``"US"`` or ``"ES"``; empty to detect it.
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
            progress: called with each Progress (``fraction``, ``stage``, ``etaSeconds``); what it raises ends the
                segmentation and is raised here.

        Raises:
            UserError: with code, cause and remedy.
        """
        from FedSegSlicerLib.Script import ScriptedSegmenter

        if self._script is None:
            self._script = ScriptedSegmenter(self.makeSegmentLogic())
        return self._script.segment(volumeNode, releasesFolder, release, modality, device, progress)

    def close(self) -> None:
        """End the worker that ``segment`` has started."""
        if self._script is not None:
            self._script.close()
            self._script = None

    def getParameterNode(self) -> FedSegSlicerParameterNode:
        """Return the scene's parameters, made on first use."""
        return FedSegSlicerParameterNode(super().getParameterNode())

    def volumeInView(self) -> "slicer.vtkMRMLScalarVolumeNode | None":
        """Return the image in the background of the slice views, else the scene's first, None without any."""
        from FedSegSlicerLib.VolumeExchange import isImage

        scene = slicer.mrmlScene
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
            shown = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode").GetBackgroundVolumeID()
            if shown and isImage(scene.GetNodeByID(shown)):
                return scene.GetNodeByID(shown)
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return next(filter(isImage, volumes), None)

    def makeSession(self) -> "object":
        """Return a WorkerSession run by Slicer's event loop; its worker starts with the first request."""
        from FedSegSlicerLib.QtTimer import callLater
        from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
        from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
        from FedSegSlicerLib.Settings import RUNTIME, readSetting, runtimeFolder
        from FedSegSlicerLib.WorkerSession import WorkerSession

        locator = RuntimeLocator(lambda: readSetting(RUNTIME), slicer.util.startupEnvironment, runtimeFolder)
        return WorkerSession(locator, QtWorkerProcess, callLater)

    def makeRuntimeInstaller(self, locator: "object") -> "object":
        """Return a RuntimeInstaller, which installs, checks and removes what ``locator`` finds."""
        from FedSegSlicerLib.QtTimer import callLater
        from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
        from FedSegSlicerLib.RuntimeInstaller import RuntimeInstaller

        return RuntimeInstaller(locator, QtWorkerProcess, callLater)

    def makeSegmentLogic(self) -> "object":
        """Return a SegmentLogic with a worker of its own."""
        from FedSegSlicerLib.QtTimer import callLater
        from FedSegSlicerLib.SegmentLogic import SegmentLogic
        from FedSegSlicerLib.Settings import siteFolder
        from FedSegSlicerLib.VolumeExchange import VolumeExchange

        return SegmentLogic(self.makeSession(), VolumeExchange(callLater), callLater, siteFolder)

    def makeSeeLogic(self) -> "object":
        """Return a SeeLogic with a worker of its own, so that a segmentation does not hold it up."""
        from FedSegSlicerLib.QtTimer import callLater
        from FedSegSlicerLib.SeeLogic import SeeLogic
        from FedSegSlicerLib.VolumeExchange import VolumeExchange

        return SeeLogic(self.makeSession(), VolumeExchange(callLater), VolumeExchange(callLater), callLater)

    def makeFederationLogic(self) -> "object":
        """Return a FederationLogic with a worker of its own; the site's processes outlive it."""
        from FedSegSlicerLib.FederationLogic import FederationLogic
        from FedSegSlicerLib.QtTimer import callLater
        from FedSegSlicerLib.VolumeExchange import VolumeExchange

        return FederationLogic(self.makeSession(), VolumeExchange(callLater), callLater)
