"""The results of a 4-D sequence's moments in the Segment tab: each is shown with its moment, kept, and taken back."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from FedSegSlicerLib.ResultPlace import resultOfFrame, resultSequence
from panel_helpers import table_of
from scene_helpers import load_volume, wait_until

pytestmark = pytest.mark.slicer


class Beating:
    """A sequence of a scan, the scan mirrored, and one that cannot be segmented; chosen in the Segment tab."""

    def __init__(self, scan, panel):
        volume = load_volume(scan, "heart")
        voxels = slicer.util.arrayFromVolume(volume).copy()
        self.images = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "heart")
        for moment, array in enumerate((voxels, voxels[:, ::-1].copy(), np.ones_like(voxels))):
            slicer.util.updateVolumeFromArray(volume, array)
            self.images.SetDataNodeAtValue(volume, str(moment * 40))
        slicer.mrmlScene.RemoveNode(volume)
        self.browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
        self.browser.SetAndObserveMasterSequenceNodeID(self.images.GetID())
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self.browser)
        self.panel = panel
        panel.ui.inputSelector.setCurrentNode(self.browser.GetProxyNode(self.images))
        wait_until(lambda: panel.widget.segmentTab._choices.releases)
        panel.ui.queueCollapsibleButton.collapsed = False

    def run(self):
        self.panel.ui.queueButton.click()
        wait_until(lambda: not self.panel.widget.segmentTab.queue.queue.isRunning)

    def go(self, moment):
        self.browser.SetSelectedItemNumber(moment)
        slicer.app.processEvents()

    def shown(self):
        """Return the segmentation that plays along, as it is now."""
        return self.browser.GetProxyNode(resultSequence(self.images)).GetSegmentation()


@pytest.fixture
def heart(open_panel, patients):
    return Beating(patients["CT"], open_panel())


def test_the_result_of_the_moment_that_is_shown_is_shown(heart):
    ui = heart.panel.ui
    assert "Segment all its moments under" in ui.messageLabel.text
    assert "Clone" in ui.messageLabel.text
    heart.run()
    words = ui.queueTable.item(0, 1).text()
    assert "same value" in words
    assert words.startswith("2 of 3 done. Every voxel of this image")
    assert "to check, in moments 1, 2" in words  # an untrained network
    assert ui.resultCollapsibleButton.isVisible()  # of the last moment that has one
    heart.go(2)
    assert not ui.resultCollapsibleButton.isVisible()
    assert heart.shown().GetNumberOfSegments() == 0  # and that of another is not shown for it
    tables = []
    for moment in (0, 1):
        heart.go(moment)
        assert ui.resultCollapsibleButton.isVisible()
        assert ui.checkLabel.isVisible()
        assert ui.resultLabel.text.startswith("tiny-CT-v2 as CT")
        assert "dited" not in ui.resultLabel.text
        tables.append(table_of(ui))
    assert [name for name, _volume in tables[0]] == [name for name, _volume in tables[1]]
    assert tables[0] != tables[1]


def test_what_plays_along_has_the_images_geometry_and_lies_beside_it(heart):
    image = heart.browser.GetProxyNode(heart.images)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, image)
    heart.run()
    result = heart.browser.GetProxyNode(resultSequence(heart.images))
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)) == study
    assert result.GetNodeReference(result.GetReferenceImageGeometryReferenceRole()) is image
    geometry = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    for moment in range(2):
        heart.go(moment)
        assert heart.shown().GetConversionParameter(geometry)


def test_names_colors_and_undo_belong_to_a_moment(heart):
    ui = heart.panel.ui
    heart.run()
    heart.go(0)
    liver = heart.shown().GetSegment("Segment_1")
    liver.SetName("Leber")
    liver.SetColor(0.0, 0.25, 1.0)
    heart.go(1)
    heart.run()
    heart.go(1)
    assert table_of(ui)[0][0].startswith("Liver")
    heart.go(0)
    assert table_of(ui)[0][0].startswith("Leber")
    again = heart.shown().GetSegment("Segment_1")
    assert (again.GetName(), again.GetColor()) == ("Leber", (0.0, 0.25, 1.0))
    assert again is not liver
    assert (ui.undoButton.text, ui.undoButton.enabled) == ("Undo", True)
    ui.undoButton.click()
    assert heart.shown().GetSegment("Segment_1") is liver
    assert ui.undoButton.text == "Redo"
    heart.go(1)
    assert ui.undoButton.text == "Undo"
    heart.go(0)
    assert ui.undoButton.text == "Redo"
    ui.undoButton.click()
    assert heart.shown().GetSegment("Segment_1") is again


def test_undo_of_the_first_result_of_a_moment_takes_that_one_away(heart):
    ui = heart.panel.ui
    heart.run()
    heart.go(0)
    ui.undoButton.click()
    assert not ui.resultCollapsibleButton.isVisible()
    assert heart.shown().GetNumberOfSegments() == 0
    assert [resultOfFrame(heart.images, moment) is None for moment in range(3)] == [True, False, True]
    heart.go(1)
    assert ui.resultCollapsibleButton.isVisible()
    heart.run()
    heart.go(0)
    assert ui.resultCollapsibleButton.isVisible()


def test_undo_of_the_results_of_all_moments_leaves_the_scene_as_it_was(heart):
    before = slicer.mrmlScene.GetNumberOfNodes()
    heart.run()
    for moment in (0, 1):
        heart.go(moment)
        heart.panel.ui.undoButton.click()
    assert resultSequence(heart.images) is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 1
    assert slicer.mrmlScene.GetNumberOfNodes() <= before + 1  # subject hierarchy's folder
    for moment in (2, 0, 1):
        heart.go(moment)
        assert not heart.panel.ui.resultCollapsibleButton.isVisible()
    heart.run()
    heart.go(0)
    assert heart.panel.ui.resultCollapsibleButton.isVisible()
    assert heart.shown().GetNumberOfSegments() == 5


def test_the_moment_that_is_shown_is_exported(heart, tmp_path):
    heart.run()
    heart.go(1)
    heart.panel.widget.segmentTab.result.exportTo(tmp_path / "moment.nii.gz")
    wait_until(lambda: heart.panel.ui.exportButton.enabled)
    assert heart.panel.ui.resultLabel.text == "Written to moment.nii.gz."
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "moment.nii.gz")))
    proxy = heart.browser.GetProxyNode(heart.images)
    node = heart.browser.GetProxyNode(resultSequence(heart.images))
    expected = np.zeros_like(written)
    for value, segment_id in enumerate(node.GetSegmentation().GetSegmentIDs(), start=1):
        expected[slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, proxy) > 0] = value
    np.testing.assert_array_equal(written, expected)
    assert written.any()
