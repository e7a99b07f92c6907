"""Tests that also run inside Slicer: developer tools, or ctest."""

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest


class FedSegSlicerTest(ScriptedLoadableModuleTest):
    """Tests that also run inside Slicer (developer tools, or ctest)."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear(False)

    def runTest(self) -> None:
        """Run all tests."""
        for test in (
            self.test_volumeIsHandedOverUnchanged,
            self.test_unfitVolumesAreRefusedInWords,
            self.test_sampleScansAreOffered,
            self.test_choicesSurviveTheScene,
        ):
            self.setUp()
            test()

    def test_volumeIsHandedOverUnchanged(self) -> None:
        """Voxels and place of an oblique volume survive the way to the worker's file and back."""
        import tempfile
        from pathlib import Path

        import numpy as np
        import vtk

        from .VolumeExchange import takeSnapshot, writeNrrd

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

        from .Errors import UserError
        from .VolumeExchange import checkVolume

        self.delayDisplay("Refusing unfit volumes")
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        moved = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16))
        moved.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
        for volumeNode, code in ((None, "volume.none"), (empty, "volume.empty"), (moved, "volume.transformed")):
            with self.assertRaises(UserError) as refused:
                checkVolume(volumeNode)
            self.assertEqual(refused.exception.code, code)
            self.assertTrue(refused.exception.remedy)

    def test_sampleScansAreOffered(self) -> None:
        """The sample images are registered, are what their checksums say, and load."""
        import hashlib
        from pathlib import Path

        import SampleData

        from .SampleScans import CATEGORY, CHECKSUMS, registerSampleScans

        self.delayDisplay("Loading a sample image")
        folder = Path(__file__).parents[1] / "Resources" / "SampleData"
        if CATEGORY not in getattr(slicer.modules, "sampleDataSources", {}):
            registerSampleScans(folder)  # where a test started before Slicer was ready
        sources = slicer.modules.sampleDataSources[CATEGORY]
        self.assertEqual(sorted(source.nodeNames[0] for source in sources), sorted(CHECKSUMS))
        for file, checksum in CHECKSUMS.items():
            self.assertEqual(hashlib.sha256((folder / f"{file}.nrrd").read_bytes()).hexdigest(), checksum)
        loaded = SampleData.SampleDataLogic().downloadFromSource(sources[0])
        volumeNode = loaded[0] if isinstance(loaded, list) else loaded
        self.assertEqual(slicer.util.arrayFromVolume(volumeNode).shape, (48, 96, 96))

    def test_choicesSurviveTheScene(self) -> None:
        """What the widgets show is saved with the scene and shown again when it is loaded; no path is saved."""
        import tempfile
        from pathlib import Path

        self.delayDisplay("Saving and loading choices")
        widget = slicer.util.getModuleWidget("FedSegSlicer")
        widget.initializeParameterNode()
        widget.ui.seeSeedSpinBox.value = 17
        widget.ui.seeLinkedCheckBox.checked = True
        widget.ui.modalityComboBox.setCurrentIndex(2)
        node = widget.logic.getParameterNode().parameterNode
        kept = " ".join(node.GetParameter(name) for name in node.GetParameterNames())
        self.assertNotIn("/", kept)
        scene = slicer.mrmlScene
        with tempfile.TemporaryDirectory() as folder:
            scene.SetURL(str(Path(folder) / "choices.mrml"))
            self.assertTrue(scene.Commit())
            scene.Clear(False)
            widget.initializeParameterNode()
            self.assertEqual(widget.ui.seeSeedSpinBox.value, 0)
            scene.SetURL(str(Path(folder) / "choices.mrml"))
            self.assertTrue(scene.Import())
        widget.initializeParameterNode()
        self.assertEqual(widget.ui.seeSeedSpinBox.value, 17)
        self.assertTrue(widget.ui.seeLinkedCheckBox.checked)
        self.assertEqual(widget.ui.modalityComboBox.currentIndex, 2)
