"""Every control and state of the See tab, through its real .ui, with the real worker as a QProcess."""

import shutil
import sys
import time
from functools import partial

import numpy as np
import pytest
import qt
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.Parameters import KernelChoice
from FedSegSlicerLib.SampleVolumes import factsOf
from FedSegSlicerLib.SeeTypes import SeeState
from FedSegSlicerLib.Settings import RUNTIME, SITE_FOLDER, readSetting, writeSetting
from scene_helpers import keep_pictures, neutral_paths, wait_until
from see_helpers import BODY, make_site, small_outline, small_scan
from see_panel import check_see_is_not_clipped

pytestmark = pytest.mark.slicer


def test_from_volume_to_samples_and_the_panel_stays_alive(open_see_panel):
    panel = open_see_panel()
    ui = panel.ui
    assert not ui.seeShowButton.enabled
    assert ui.seeShowButton.toolTip == "Choose a volume to look at."
    assert not ui.seeSamplesCollapsibleButton.isVisible()
    panel.ui.seeVolumeSelector.setCurrentNode(small_scan("CT", "CT abdomen"))
    assert ui.seeShowButton.enabled
    assert ui.seeShowButton.text == "Show samples"
    ticks = [time.monotonic()]
    timer = qt.QTimer()
    timer.timeout.connect(lambda *_: ticks.append(time.monotonic()))
    timer.start(10)
    ui.seeShowButton.click()
    assert ui.seeStopButton.enabled
    assert ui.seeProgressBar.isVisible()
    wait_until(lambda: len(panel.logic.samples) == 5)
    wait_until(lambda: "slices of this sample" in ui.seeKeepButton.toolTip)
    panel.whole()
    timer.stop()
    gaps = np.diff(ticks)
    assert np.median(gaps) < 0.1
    assert gaps.max() < 1.0  # this machine may be busy with other things
    assert ui.seeModalityLabel.text.startswith("Prepared as CT")
    assert panel.titles()[0] == "Original"
    assert panel.titles()[1:] == [f"{n + 1}: strength {s.alpha:.2f}" for n, s in sorted(panel.logic.samples.items())]
    assert ui.seeSliceLabel.text == f"{panel.logic.scene.shown + 1} of {panel.logic.scene.slices}"
    assert ui.seeShowButton.text == "New samples"
    assert not ui.seeProgressBar.isVisible()
    assert not ui.seeStopButton.enabled


def test_pictures_show_the_slice_and_the_outline_fits_every_sample(open_see_panel):
    """The outline lies on the same pixels of every picture, and these are where the label map has its border."""
    volume = small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 3
    panel.show()
    bare = [panel.icon(row) for row in range(4)]
    assert len({picture.tobytes() for picture in bare}) == 4
    panel.ui.seeSegmentationSelector.setCurrentNode(small_outline(volume))
    panel.drawn()
    outlined = [panel.icon(row) for row in range(4)]
    changed = [(after != before).any(axis=-1) for before, after in zip(bare, outlined, strict=True)]
    # A pixel that has the outline's color already does not change, so the four may differ there only.
    everywhere = np.logical_or.reduce(changed)
    assert everywhere.sum() > 100
    for mask in changed:
        assert (mask != everywhere).sum() < 0.02 * everywhere.sum()
    segmentation = panel.parameters.seeSegmentation
    display = segmentation.GetDisplayNode()
    for segment in segmentation.GetSegmentation().GetSegmentIDs():
        display.SetSegmentVisibility(segment, False)
    panel.tab.refresh()
    panel.drawn()
    np.testing.assert_array_equal(panel.icon(2), bare[2])


def test_the_slice_slider_goes_through_the_volume(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 1
    panel.show()
    slider = panel.ui.seeSliceSlider
    assert (slider.minimum, slider.maximum) == (0, panel.logic.scene.slices - 1)
    before = panel.icon(0)
    slider.value = slider.value - 5
    panel.drawn()
    assert (panel.icon(0) != before).any()
    assert panel.ui.seeSliceLabel.text.startswith(f"{slider.value + 1} of")
    kept = slider.value
    panel.ui.seeShowButton.click()  # new samples of the same slice
    panel.whole()
    assert slider.value == kept
    assert panel.logic.scene.shown == kept


def test_every_setting_makes_other_samples_and_is_kept_with_the_scene(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 1
    panel.show()
    changes = {
        "strength": lambda ui: ui.seeStrengthRange.setValues(0.5, 0.75),
        "layers": lambda ui: ui.seeLayersSlider.setValue(3),
        "kernels": lambda ui: ui.seeKernelsComboBox.setCurrentIndex(2),
        "batch": lambda ui: ui.seeBatchCheckBox.click(),
        "seed": lambda ui: ui.seeSeedSpinBox.setValue(40),
        "button": lambda ui: ui.seeShowButton.click(),
    }
    seen = [panel.logic.samples[0]]
    for change in changes.values():
        change(panel.ui)
        wait_until(lambda: panel.logic.samples.get(0) not in seen)
        panel.whole()
        seen.append(panel.logic.samples[0])
    chosen = panel.parameters
    assert (chosen.seeStrengthLow, chosen.seeStrengthHigh, chosen.seeLayers) == (0.5, 0.75, 3.0)
    assert (chosen.seeKernels, chosen.seePerBatch, chosen.seeSeed) == (KernelChoice.TO_FIVE, True, 41)
    assert all(0.5 <= sample.alpha <= 0.75 for sample in seen[1:])
    node = chosen.parameterNode
    assert (node.GetParameter("seeSeed"), node.GetParameter("seeKernels")) == ("41", "TO_FIVE")
    panel.ui.seeSamplesSpinBox.value = 2
    wait_until(lambda: len(panel.titles()) == 3)
    panel.whole()


def test_windows_are_linked_or_each_its_own(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 2
    panel.show()
    volumes = panel.logic.volumes
    own = [volumes.window(index) for index in range(3)]
    assert len(set(own)) == 3
    pictures = [panel.icon(row) for row in range(3)]
    panel.ui.seeLinkedCheckBox.click()
    panel.drawn()
    assert {volumes.window(index) for index in range(3)} == {own[0]}
    assert len({node.GetDisplayNodeID() for node in volumes.nodes()}) == 1
    np.testing.assert_array_equal(panel.icon(0), pictures[0])
    assert (panel.icon(1) != pictures[1]).any()
    panel.ui.seeLinkedCheckBox.click()
    panel.drawn()
    assert [volumes.window(index) for index in range(3)] == own


def test_the_chosen_sample_is_measured_compared_and_kept(open_see_panel):
    small_scan("CT", "CT abdomen")
    panel = open_see_panel()
    ui = panel.ui
    panel.parameters.seeReference = None
    ui.seeSamplesSpinBox.value = 2
    panel.show()
    assert "Sample 1" in ui.seeMeasuresLabel.text
    ui.seePictureList.setCurrentRow(2)
    sample = panel.logic.samples[1]
    assert f"Brightness: {sample.correlation:+.2f}" in ui.seeMeasuresLabel.text
    assert f"{sample.histogramDistance:.2f} SD" in ui.seeMeasuresLabel.text
    assert "reference" not in ui.seeMeasuresLabel.text
    assert not ui.seeHistogramLabel.pixmap.isNull()
    slicer.app.processEvents()
    assert panel.own.minimumSizeHint().width() <= panel.own.width() == 440  # Slicer would scroll sideways
    panel.parameters.seeReference = small_scan("MR", "MR abdomen")
    wait_until(lambda: panel.logic.samples.get(1) is not None and panel.logic.samples[1].referenceDistance is not None)
    panel.whole()
    assert "from the reference" in ui.seeMeasuresLabel.text
    assert "reference" in ui.seeLegendLabel.text
    ui.seeKeepButton.click()
    kept = slicer.mrmlScene.GetFirstNodeByName("CT abdomen GIN seed 0 sample 2")
    assert factsOf(kept)["number"] == 1
    assert kept.GetName() in ui.seeKeptLabel.text
    assert ui.seeKeptLabel.isVisible()
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(kept), slicer.util.arrayFromVolume(panel.logic.volumes.node(2))
    )
    ui.seePictureList.setCurrentRow(0)
    assert not ui.seeChosenCollapsibleButton.isVisible()  # the original is no sample


def test_settings_go_to_the_site(open_see_panel, tmp_path):
    panel = open_see_panel()
    ui = panel.ui
    assert (ui.seeUseButton.enabled, ui.seeUseButton.toolTip) == (False, "Choose your site's folder first.")
    ui.seeSitePathEdit.currentPath = str(make_site(tmp_path / "site"))
    assert readSetting(SITE_FOLDER) == str(tmp_path / "site")
    assert (ui.seeUseButton.enabled, ui.seeUseButton.toolTip) == (False, "Look at samples first.")
    assert ui.seeBackButton.enabled
    small_scan("CT")
    panel.widget.initializeParameterNode()
    ui.seeSamplesSpinBox.value = 1
    ui.seeStrengthRange.setValues(0.0, 0.5)
    panel.show()
    ui.seeUseButton.click()
    ui.seeStrengthRange.setValues(0.0, 0.9)  # before the answer: it is not what was sent
    wait_until(lambda: "north" in ui.seeTrainingLabel.text)
    assert "strength 0.00 to 0.50" in ui.seeTrainingLabel.text
    assert (tmp_path / "site" / "augmentation.json").exists()
    ui.seeBackButton.click()
    wait_until(lambda: "federation's settings" in ui.seeTrainingLabel.text)
    assert not (tmp_path / "site" / "augmentation.json").exists()
    ui.seeSitePathEdit.currentPath = str(tmp_path)
    assert ui.seeTrainingLabel.isHidden()
    ui.seeUseButton.click()
    wait_until(lambda: ui.seeMessageLabel.isVisible())
    assert "site.folder" in ui.seeMessageLabel.text


def test_a_kept_sample_is_made_again_bit_for_bit(open_see_panel):
    small_scan("CT", "CT abdomen")
    panel = open_see_panel()
    ui = panel.ui
    ui.seeSamplesSpinBox.value = 1
    panel.show()
    assert not ui.seeAgainButton.isVisible()
    ui.seeKeepButton.click()
    kept = slicer.mrmlScene.GetFirstNodeByName("CT abdomen GIN seed 0 sample 1")
    ui.seeVolumeSelector.setCurrentNode(kept)
    assert ui.seeAgainButton.isVisible()
    ui.seeAgainButton.click()
    assert ui.seeProgressBar.isVisible()
    assert not ui.seeAgainButton.enabled
    wait_until(lambda: ui.seeAgainLabel.isVisible())
    assert ui.seeAgainLabel.text.endswith("the kept one's.")
    again = slicer.mrmlScene.GetFirstNodeByName("CT abdomen GIN seed 0 sample 1 made again")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(kept))
    assert ui.seeAgainButton.enabled
    source = slicer.mrmlScene.GetFirstNodeByName("CT abdomen")
    slicer.util.arrayFromVolume(source)[4] += 100
    slicer.util.arrayFromVolumeModified(source)
    ui.seeAgainButton.click()
    assert not ui.seeAgainLabel.isVisible()
    wait_until(lambda: "has changed since" in ui.seeAgainLabel.text)
    slicer.mrmlScene.RemoveNode(source)
    ui.seeAgainButton.click()
    assert "volume.gone" in ui.seeMessageLabel.text
    ui.seeVolumeSelector.setCurrentNode(again)
    assert not ui.seeAgainButton.isVisible()
    assert not ui.seeAgainLabel.isVisible()


def test_the_kind_of_image_can_be_said(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    ui = panel.ui
    ui.seeSamplesSpinBox.value = 1
    panel.show()
    detected = slicer.util.arrayFromVolume(panel.logic.volumes.node(0)).copy()
    ui.seeModalityComboBox.setCurrentText("MR")
    wait_until(lambda: ui.seeModalityLabel.text == "Prepared as MR.")
    panel.whole()
    prepared = slicer.util.arrayFromVolume(panel.logic.volumes.node(0))
    assert prepared.shape != detected.shape or (prepared != detected).any()


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on file sizes plays the full disk")
def test_a_full_disk_is_told_and_ends_nothing_else(open_see_panel):
    """The pictures cannot be written from here; the worker, another process, can."""
    import resource
    import signal

    small_scan("CT")
    panel = open_see_panel()
    ui = panel.ui
    ui.seeSamplesSpinBox.value = 2
    panel.show()
    former, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        ui.seeSeedSpinBox.setValue(40)
        wait_until(lambda: panel.logic.scene is not None and panel.logic.scene.look.seed == 40)
        wait_until(lambda: panel.logic.state is SeeState.IDLE)
        wait_until(lambda: ui.seeMessageLabel.isVisible())
        assert "pictures could not be written" in ui.seeMessageLabel.text
        assert "disk.full" in ui.seeMessageLabel.text
        assert all(sample.isWhole for sample in panel.logic.samples.values())
        assert not ui.seeProgressBar.isVisible()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    panel.show()
    assert not ui.seeMessageLabel.isVisible()


def test_a_temporary_folder_that_was_cleaned_is_made_again(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 1
    panel.show()
    cleaned = panel.logic.folder()
    shutil.rmtree(cleaned)
    panel.ui.seePictureList.setCurrentRow(0)
    panel.ui.seePictureList.setCurrentRow(1)
    panel.show()
    assert not panel.ui.seeMessageLabel.isVisible()
    assert panel.logic.samples[0].isWhole
    assert not cleaned.exists()


def test_stop_keeps_what_is_there(open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 11
    panel.ui.seeShowButton.click()
    wait_until(lambda: panel.logic.samples)
    panel.ui.seeStopButton.click()
    wait_until(lambda: panel.logic.state is SeeState.IDLE)
    assert panel.logic.samples
    assert not panel.ui.seeMessageLabel.isVisible()
    assert not panel.ui.seeStopButton.enabled


def test_unfit_volumes_and_failures_are_told(open_see_panel):
    node = slicer.util.addVolumeFromArray(np.ones((2, 3, 4), np.int16))
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    panel = open_see_panel()
    assert not panel.ui.seeShowButton.enabled
    assert "Harden the transform" in panel.ui.seeShowButton.toolTip
    assert panel.ui.seeProgressLabel.text == panel.ui.seeShowButton.toolTip
    node.SetAndObserveTransformNodeID(None)
    panel.tab.refresh()
    panel.ui.seeShowButton.click()  # every voxel has the same value
    wait_until(lambda: panel.ui.seeMessageLabel.isVisible())
    assert "image." in panel.ui.seeMessageLabel.text
    panel.logic.failed.emit(UserError("disk.full", "The disk is <full>.", "Free some space."))
    assert "The disk is &lt;full&gt;." in panel.ui.seeMessageLabel.text


def test_closing_the_scene_and_the_module_leaves_nothing(main_window, open_see_panel):
    small_scan("CT")
    panel = open_see_panel()
    panel.ui.seeSamplesSpinBox.value = 2
    panel.show()
    slicer.mrmlScene.Clear(False)
    assert panel.logic.scene is None
    assert panel.ui.seePictureList.count == 0
    assert not panel.ui.seeSamplesCollapsibleButton.isVisible()
    panel.ui.seeVolumeSelector.setCurrentNode(small_scan("CT"))
    panel.show()
    node, folder = panel.parameters.parameterNode, panel.logic.folder()
    panel.widget.cleanup()
    assert not folder.exists()
    assert not node.HasObserver("ModifiedEvent")
    names = {n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
    assert names == {"scan"}


def test_pictures_of_every_state_have_no_clipped_text(open_see_panel, tmp_path):
    writeSetting(RUNTIME, "")
    panel = open_see_panel()
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    def has_its_height(width):
        """Give the tab the height it needs, as Slicer's scroll area does, and say whether it needs no other now."""
        needed = max(500, panel.own.layout().totalHeightForWidth(width))
        panel.own.resize(width, needed)
        slicer.app.processEvents()
        panel.tab.refresh()
        panel.drawn()
        slicer.app.processEvents()
        return needed == max(500, panel.own.layout().totalHeightForWidth(width))

    def picture(name):
        for width in (340, 440):
            # what wraps and how high the list is depends on the width, and an answer may still come
            wait_until(partial(has_its_height, width))
            check_see_is_not_clipped(panel)
            with neutral_paths(panel.own):
                assert panel.own.grab().save(str(pictures / f"see-tab-{name}-{width}.png"))

    picture("empty")
    volume = small_scan("CT", "CT abdomen", size=BODY)
    panel.ui.seeVolumeSelector.setCurrentNode(volume)
    picture("ready")
    panel.ui.seeSegmentationSelector.setCurrentNode(small_outline(volume, BODY))
    panel.ui.seeShowButton.click()
    wait_until(lambda: len(panel.titles()) == 6 and "…" not in panel.titles())
    picture("running")
    panel.whole()
    picture("samples")
    panel.ui.seeReferenceSelector.setCurrentNode(small_scan("MR", "MR abdomen", size=BODY))
    wait_until(lambda: panel.logic.samples.get(0) is not None and panel.logic.samples[0].referenceDistance is not None)
    panel.whole()
    panel.ui.seeTrainingCollapsibleButton.collapsed = False
    panel.ui.seeSitePathEdit.currentPath = str(make_site(tmp_path / "site"))
    panel.ui.seeUseButton.click()
    wait_until(lambda: panel.ui.seeTrainingLabel.isVisible())
    panel.ui.seeKeepButton.click()
    picture("compared")
    panel.logic.failed.emit(
        UserError("volume.gone", "The volume was removed meanwhile.", "Load it again to look at it.")
    )
    picture("error")
    keep_pictures(pictures)
