"""FedSegSlicer: one click segments a scan with the newest model of a federation; images never leave the computer.

This file is thin: each tab and each duty has its own file in FedSegSlicerLib.
"""

import slicer
from FedSegSlicerLib import VERSION
from FedSegSlicerLib.Parameters import FedSegSlicerParameterNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


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
            "Choose a volume and press Segment. Computing is done on this computer; nothing is sent anywhere."
        ) + _("<p>Version {version}. Not a medical device.</p>").format(version=VERSION)
        parent.acknowledgementText = _(
            "Built on 3D Slicer, MONAI, PyTorch and Flower. GIN: Ouyang et al., IEEE TMI 2023."
        )


class FedSegSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the user interface, and connects each tab with the scene's parameters while the module is open."""

    def __init__(self, parent: object = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.segmentTab = None
        self._parameters = None
        self._guiTag = None

    def setup(self) -> None:
        """Make the user interface; called when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from FedSegSlicerLib.SegmentTab import SegmentTab

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/FedSegSlicer.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = FedSegSlicerLogic()
        self.segmentTab = SegmentTab(self.ui, self.logic.makeSegmentLogic())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._onSceneEnd)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self._onSceneEnd)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Stop the worker and let go of the scene; called before the widget is destroyed."""
        self.removeObservers()
        self._setParameters(None)
        if self.segmentTab is not None:
            self.segmentTab.cleanup()

    def enter(self) -> None:
        """Follow the scene's parameters; called each time the module is shown."""
        self.initializeParameterNode()
        self.segmentTab.refresh()

    def exit(self) -> None:
        """Stop following the parameters with the widgets; what runs goes on."""
        if self._parameters is not None and self._guiTag is not None:
            self._parameters.disconnectGui(self._guiTag)
            self._guiTag = None

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node; choose the volume the slice views show if none is chosen."""
        self._setParameters(self.logic.getParameterNode())
        if self._parameters.inputVolume is None:
            volumeNode = self.logic.volumeInView()
            if volumeNode is not None:
                self._parameters.inputVolume = volumeNode

    def _setParameters(self, parameters: FedSegSlicerParameterNode | None) -> None:
        self.exit()
        self._parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
        if self.segmentTab is not None:
            self.segmentTab.setParameters(parameters)

    def _onSceneStartClose(self, _caller: object, _event: object) -> None:
        self.segmentTab.logic.cancel()
        self._setParameters(None)

    def _onSceneEnd(self, _caller: object, _event: object) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()


class FedSegSlicerLogic(ScriptedLoadableModuleLogic):
    """What scripts and the widget share.

    In a script or notebook inside Slicer::

        logic = FedSegSlicerLogic().makeSegmentLogic()
        logic.finished.connect(lambda outcome: print(outcome.rows))
        logic.failed.connect(print)
        logic.segment(volumeNode, "CT", "demo-CT-v1", "/folder/of/releases", "auto")
    """

    def getParameterNode(self) -> FedSegSlicerParameterNode:
        """Return the scene's parameters, made on first use."""
        return FedSegSlicerParameterNode(super().getParameterNode())

    def volumeInView(self) -> "slicer.vtkMRMLScalarVolumeNode | None":
        """Return the volume in the background of the slice views, else the scene's first, None without any."""
        scene = slicer.mrmlScene
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
            shown = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode").GetBackgroundVolumeID()
            if shown and scene.GetNodeByID(shown) is not None:
                return scene.GetNodeByID(shown)
        return scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def makeSession(self) -> "object":
        """Return a WorkerSession run by Slicer's event loop; its worker starts with the first request."""
        import qt
        from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
        from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
        from FedSegSlicerLib.Settings import RUNTIME, readSetting
        from FedSegSlicerLib.WorkerSession import WorkerSession

        locator = RuntimeLocator(lambda: readSetting(RUNTIME), slicer.util.startupEnvironment)
        return WorkerSession(locator, QtWorkerProcess, qt.QTimer.singleShot)

    def makeSegmentLogic(self) -> "object":
        """Return a SegmentLogic with a worker of its own."""
        import qt
        from FedSegSlicerLib.SegmentLogic import SegmentLogic
        from FedSegSlicerLib.VolumeExchange import VolumeExchange

        callLater = qt.QTimer.singleShot
        return SegmentLogic(self.makeSession(), VolumeExchange(callLater), callLater)


class FedSegSlicerTest(ScriptedLoadableModuleTest):
    """Tests that also run inside Slicer (developer tools, or ctest)."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear(False)

    def runTest(self) -> None:
        """Run all tests."""
        for test in (self.test_volumeIsHandedOverUnchanged, self.test_unfitVolumesAreRefusedInWords):
            self.setUp()
            test()

    def test_volumeIsHandedOverUnchanged(self) -> None:
        """Voxels and place of an oblique volume survive the way to the worker's file and back."""
        import tempfile
        from pathlib import Path

        import numpy as np
        import vtk
        from FedSegSlicerLib.VolumeExchange import takeSnapshot, writeNrrd

        self.delayDisplay("Handing over a volume")
        voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy([0.8, -1.2, 0, 5, 0.6, 1.6, 0, -6, 0, 0, 3, 7, 0, 0, 0, 1])
        volumeNode = slicer.util.addVolumeFromArray(voxels, ijkToRAS=matrix, name="oblique")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "volume.nrrd"
            writeNrrd(takeSnapshot(volumeNode), path)
            storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
            storage.SetFileName(str(path))
            again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            self.assertTrue(storage.ReadData(again))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), voxels)
        found = vtk.vtkMatrix4x4()
        again.GetIJKToRASMatrix(found)
        for row in range(4):
            for column in range(4):
                self.assertAlmostEqual(found.GetElement(row, column), matrix.GetElement(row, column), places=6)

    def test_unfitVolumesAreRefusedInWords(self) -> None:
        """A volume with a transform, without voxels, or no volume at all is refused with code and remedy."""
        import numpy as np
        from FedSegSlicerLib.Errors import UserError
        from FedSegSlicerLib.VolumeExchange import checkVolume

        self.delayDisplay("Refusing unfit volumes")
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        moved = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16))
        moved.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
        for volumeNode, code in ((None, "volume.none"), (empty, "volume.empty"), (moved, "volume.transformed")):
            with self.assertRaises(UserError) as refused:
                checkVolume(volumeNode)
            self.assertEqual(refused.exception.code, code)
            self.assertTrue(refused.exception.remedy)
