"""Every button and state of the Segment tab, through its real .ui, with the real worker as a QProcess."""

import sys
import time

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.Parameters import DeviceChoice, ModalityChoice
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.SegmentLogic import Inspection
from scene_helpers import load_volume, wait_until

import FedSegSlicer as module

pytestmark = pytest.mark.slicer


def test_the_chosen_release_is_used_and_kept_with_the_scene(open_panel, patients):
    volume = load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.ui.releaseComboBox.currentIndex = 1
    assert panel.parameters.release == "tiny-CT-v1"
    node = panel.parameters.parameterNode
    assert node.GetParameter("release") == "tiny-CT-v1"
    assert node.GetNodeReference("inputVolume") is volume
    panel.ui.releaseComboBox.currentIndex = 0
    panel.ui.segmentButton.click()
    panel.idle()
    assert findResult(volume).GetAttribute("FedSegSlicer.Release") == "tiny-CT-v2"


def test_cancel_button(open_panel, patients):
    volume = load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.ui.releaseComboBox.currentIndex = 1  # the slow one
    panel.ui.segmentButton.click()
    wait_until(lambda: panel.ui.progressBar.value > 0)
    start = time.monotonic()
    panel.ui.segmentButton.click()
    assert (panel.ui.segmentButton.text, panel.ui.segmentButton.enabled) == ("Cancelling…", False)
    panel.idle()
    assert time.monotonic() - start < 2.5
    assert panel.ui.segmentButton.text == "Segment"
    assert panel.ui.segmentButton.enabled
    assert not panel.ui.messageLabel.isVisible()
    assert findResult(volume) is None


def test_modality_can_be_overridden(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    combo = panel.ui.modalityComboBox
    assert [combo.itemText(n) for n in range(combo.count)] == ["Detect", "CT", "MR", "Ultrasound", "Endoscopy"]
    combo.currentIndex = 2
    assert panel.parameters.modality is ModalityChoice.MR
    assert panel.ui.releaseComboBox.itemText(0) == "tiny-MR, version 1 (signer unknown)"
    assert panel.ui.modalityLabel.text.startswith("You say MR. Detected: CT")
    combo.currentIndex = 3
    assert not panel.ui.segmentButton.enabled
    assert panel.ui.segmentButton.toolTip == "There is no model for US images in the folder of models."
    assert panel.ui.progressLabel.text == panel.ui.segmentButton.toolTip


def test_an_unsure_modality_is_asked_for(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.logic.inspected.emit(Inspection("MR", 0.4, "it looks like neither"))
    assert not panel.ui.segmentButton.enabled
    assert "Say what kind of image" in panel.ui.segmentButton.toolTip
    panel.ui.modalityComboBox.currentIndex = 1
    assert panel.ui.segmentButton.enabled


def test_a_graphics_card_that_is_not_there(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.widget.segmentTab._choices.devices = ["auto", "cpu"]
    panel.ui.deviceComboBox.currentIndex = 2
    assert panel.parameters.device is DeviceChoice.GPU
    assert not panel.ui.segmentButton.enabled
    assert "graphics card" in panel.ui.segmentButton.toolTip


def test_a_color_image_can_be_chosen_and_is_taken_for_a_picture(open_panel):
    colors = np.random.default_rng(0).integers(0, 255, (1, 48, 64, 3), np.uint8)
    picture = slicer.util.addVolumeFromArray(colors, nodeClassName="vtkMRMLVectorVolumeNode", name="endoscopy")
    panel = open_panel()
    panel.ui.inputSelector.setCurrentNode(picture)
    assert panel.parameters.inputVolume is picture
    wait_until(lambda: panel.ui.modalityLabel.text)
    assert not panel.ui.messageLabel.isVisible()
    assert panel.ui.modalityLabel.text.startswith("Endoscopy, ")
    panel.ui.modalityComboBox.currentIndex = 1
    panel.ready()
    panel.ui.segmentButton.click()
    panel.idle()
    assert "image.not-hounsfield" in panel.ui.messageLabel.text  # it cannot be a CT
    panel.ui.modalityComboBox.currentIndex = 2  # a picture of an MR slice
    panel.ready()
    panel.ui.segmentButton.click()
    panel.idle()
    assert panel.ui.resultCollapsibleButton.isVisible()
    assert findResult(picture).GetSegmentation().GetNumberOfSegments() == 5


@pytest.mark.parametrize("count", [0, 1, 50])
def test_scenes_with_no_one_and_many_volumes(open_panel, patients, count):
    for number in range(count):
        slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name=f"volume {number}")
    panel = open_panel()
    assert panel.ui.inputSelector.count == count + 1  # and "None"
    if count == 0:
        assert panel.ui.segmentButton.toolTip == "Choose a volume to segment."
        volume = load_volume(patients["CT"])
        panel.ui.inputSelector.setCurrentNode(volume)
        panel.ready()


def test_the_volume_in_the_slice_view_is_preselected(open_panel):
    slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="first")
    shown = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="shown")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetBackgroundVolumeID(shown.GetID())
    assert open_panel().parameters.inputVolume is shown
    assert module.FedSegSlicerLogic().volumeInView() is shown


def test_no_label_map_and_no_hidden_volume_is_preselected(open_panel):
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    hidden = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="hidden")
    hidden.SetHideFromEditors(True)
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetBackgroundVolumeID(labels.GetID())
    assert module.FedSegSlicerLogic().volumeInView() is None
    image = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="image")
    assert open_panel().parameters.inputVolume is image


def test_an_image_that_is_loaded_while_the_module_is_open_is_chosen_where_none_is(open_panel):
    panel = open_panel()
    ui = panel.ui
    assert ui.inputSelector.currentNode() is None
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    first = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="first")
    wait_until(lambda: ui.inputSelector.currentNode() is first)
    assert ui.seeVolumeSelector.currentNode() is first
    second = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16), name="second")
    wait_until(lambda: not panel.widget._isChoosing)
    assert panel.parameters.inputVolume is first
    panel.parameters.inputVolume, panel.parameters.seeVolume = second, None
    ui.tabWidget.setCurrentIndex(1)
    assert ui.seeVolumeSelector.currentNode() is second


def test_errors_are_shown_in_the_panel_with_code_and_remedy(open_panel):
    node = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16))
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    panel = open_panel()
    assert panel.ui.messageLabel.isVisible()
    assert "volume.transformed" in panel.ui.messageLabel.text
    assert "Harden the transform" in panel.ui.messageLabel.text
    assert not panel.ui.segmentButton.enabled
    node.SetAndObserveTransformNodeID(None)
    wait_until(lambda: "volume.transformed" not in panel.ui.messageLabel.text or not panel.ui.messageLabel.isVisible())
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLinearTransformNode").GetID())
    assert panel.ui.messageLabel.isVisible()
    assert "volume.transformed" in panel.ui.messageLabel.text


def test_a_failed_run_is_shown_and_can_be_tried_again(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.logic.failed.emit(UserError("device.memory", "Not <enough> memory.", "Choose the processor."))
    text = panel.ui.messageLabel.text
    assert "Not &lt;enough&gt; memory." in text
    assert "device.memory" in text
    assert panel.ui.segmentButton.enabled
    panel.ui.segmentButton.click()
    assert not panel.ui.messageLabel.isVisible()
    panel.idle()
    assert panel.ui.resultCollapsibleButton.isVisible()


def test_without_a_runtime_the_panel_says_what_to_do(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel(runtime="/no/such/folder")
    wait_until(lambda: panel.ui.messageLabel.isVisible())
    assert "runtime.unusable" in panel.ui.messageLabel.text
    assert not panel.ui.settingsCollapsibleButton.collapsed
    assert not panel.ui.segmentButton.enabled
    panel.ui.runtimePathEdit.currentPath = sys.executable
    panel.ready()
    assert not panel.ui.messageLabel.isVisible()


def test_without_models_the_panel_says_what_to_do(open_panel, patients, releases, tmp_path):
    load_volume(patients["CT"])
    panel = open_panel(folder="")
    wait_until(lambda: "folder" in panel.ui.progressLabel.text)
    assert not panel.ui.settingsCollapsibleButton.collapsed
    panel.ui.releasesPathEdit.currentPath = str(tmp_path / "absent")
    wait_until(lambda: panel.ui.messageLabel.isVisible())
    assert "release.no-folder" in panel.ui.messageLabel.text
    panel.ui.releasesPathEdit.currentPath = str(releases)
    panel.ready()


def test_closing_the_scene_while_running(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.ui.segmentButton.click()
    slicer.mrmlScene.Clear(False)
    panel.idle()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert not panel.ui.segmentButton.enabled
    volume = load_volume(patients["CT"])
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ready()


def test_leaving_and_entering_the_module_keeps_what_was_chosen(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel()
    panel.ready()
    panel.ui.deviceComboBox.currentIndex = 1
    panel.widget.exit()
    panel.parameters.device = DeviceChoice.AUTO
    assert panel.ui.deviceComboBox.currentIndex == 1  # not followed while away
    panel.widget.enter()
    assert panel.ui.deviceComboBox.currentIndex == 0
    panel.ready()


def test_closing_the_module_leaves_no_process_no_files_and_no_observers(open_panel, patients):
    load_volume(patients["CT"])
    panel = open_panel(runtime=sys.executable)
    panel.ready()
    process = panel.logic.session._process
    folder = panel.logic._exchange.folder()
    node = panel.parameters.parameterNode
    panel.widget.cleanup()
    assert not process.isRunning()
    assert not folder.exists()
    assert panel.widget.Observations == [] or not list(panel.widget.Observations)
    assert not node.HasObserver("ModifiedEvent")
    slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16))  # nobody listens, nothing fails


def test_module_metadata_and_self_test():
    parent = type("Parent", (), {"path": "FedSegSlicer.py"})()
    module.FedSegSlicer(parent)
    assert parent.title == "FedSegSlicer"
    assert parent.categories == ["Segmentation"]
    assert "gate" in parent.helpText
    slicer.app.emit("startupCompleted()")
    names = [source.sampleName for source in slicer.modules.sampleDataSources.pop("FedSegSlicer")]
    assert names == ["Generated abdomen, CT", "Generated abdomen, MR"]
    test = module.FedSegSlicerTest()
    test.setUp()
    test.runTest()


def test_a_module_that_is_reloaded_while_it_is_shown_lists_its_models(open_panel):
    """Slicer makes the widgets anew then, and does not tell that the module is entered."""
    panel = open_panel()
    panel.widget.cleanup()
    again = type(panel.widget)()
    again.parent._qt_object.isEntered = True
    again.setup()
    wait_until(lambda: again.segmentTab._choices.releases)
    again.cleanup()
    again.parent._qt_object.deleteLater()


def test_the_kind_that_was_said_of_one_volume_is_not_said_of_the_next(open_panel, patients):
    first, second = load_volume(patients["CT"], "first"), load_volume(patients["CT"], "second")
    panel = open_panel()
    panel.ui.inputSelector.setCurrentNode(first)
    panel.ready()
    panel.ui.modalityComboBox.currentIndex = 2
    panel.ui.inputSelector.setCurrentNode(None)
    panel.ui.inputSelector.setCurrentNode(first)
    assert panel.parameters.modality is ModalityChoice.MR  # of the same volume it holds
    panel.ui.inputSelector.setCurrentNode(second)
    assert (panel.parameters.modality, panel.ui.modalityComboBox.currentIndex) == (ModalityChoice.AUTO, 0)
    panel.ready()
    assert panel.ui.modalityLabel.text.startswith("CT, ")
    panel.ui.modalityComboBox.currentIndex = 2
    panel.widget.exit()
    panel.widget.enter()
    assert panel.parameters.modality is ModalityChoice.MR
    slicer.mrmlScene.StartState(slicer.mrmlScene.ImportState)  # a scene brings its volume with what was said of it
    panel.parameters.inputVolume = first
    slicer.mrmlScene.EndState(slicer.mrmlScene.ImportState)
    assert panel.parameters.modality is ModalityChoice.MR
