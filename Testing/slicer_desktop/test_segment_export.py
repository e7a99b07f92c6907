"""A result that its user has edited, exported by the real worker and read back by other programs."""

from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
import qt
import SimpleITK as sitk
import slicer
import vtk
from FedSegSlicerLib.SegmentationResult import ROLE, findResult
from FedSegSlicerLib.Segments import imageOf, readLabelMap
from panel_helpers import outcome_to_check, show_result
from scene_helpers import bring_in, load_volume, wait_until
from test_segment_logic import Desk
from vtk.util.numpy_support import vtk_to_numpy

from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.reading import read_label_map
from FedSegCore.volumes.segmentation_file import read_segments

pytestmark = pytest.mark.slicer


@pytest.fixture(scope="module")
def desk():
    made = Desk()
    yield made
    made.logic.close()


def exported(desk, volume, path):
    """Export and return the error's code, None if it went well."""
    told = []
    desk.logic.export(volume, path, lambda: told.append(None), lambda error: told.append(error.code))
    desk.wait(lambda: told)
    return told[0]


@pytest.fixture
def edited(patients):
    """Return a volume with a result in which the liver was halved and renamed and a segment was drawn by hand."""
    volume = load_volume(patients["CT"])
    node = bring_in(patients["CT.labels"], volume).node
    truth = read_label_map(patients["CT.labels"]).array[0]
    expected = truth.copy()
    liver = truth == 1
    liver[: len(liver) // 2] = False
    expected[(truth == 1) & ~liver] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(liver.astype(np.uint8), node, "Segment_1", volume)
    node.GetSegmentation().GetSegment("Segment_1").SetName("half a liver")
    node.GetSegmentation().AddEmptySegment("own", "mine")
    own = np.zeros(truth.shape, np.uint8)
    own[0, 0:2, 0:3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(own, node, "own", volume)
    expected[own > 0] = 6
    return volume, expected


@pytest.mark.parametrize("name", ["found.seg.nrrd", "found.nii.gz", "found.nrrd"])
def test_what_the_user_made_of_it_is_written(name, desk, edited, tmp_path, patients):
    volume, expected = edited
    assert exported(desk, volume, tmp_path / name) is None
    image = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
    scan = sitk.ReadImage(str(patients["CT"]))
    np.testing.assert_allclose(image.GetOrigin(), scan.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), scan.GetDirection(), atol=1e-6)
    if name.endswith(".seg.nrrd"):
        segments = read_segments(tmp_path / name)
        assert [segment["name"] for segment in segments] == ["half a liver", *TORSO_CONTRACT.names[1:], "mine"]
        assert TORSO_CONTRACT.labels[0].type.code in segments[0]["terminology"]
        assert TORSO_CONTRACT.labels[1].modifier.code in segments[1]["terminology"]


def test_dicom_needs_a_series_and_other_endings_are_refused(desk, edited, tmp_path):
    volume, _ = edited
    assert exported(desk, volume, tmp_path / "found.dcm") == "output.no-dicom"
    assert exported(desk, volume, tmp_path / "found.txt") == "file.suffix"
    assert exported(desk, volume, tmp_path / "nowhere" / "found.nrrd") == "file.unwritable"
    assert list(tmp_path.iterdir()) == []


def test_without_a_result_or_with_other_voxels_it_is_refused(desk, patients, tmp_path):
    volume = load_volume(patients["CT"])
    assert exported(desk, volume, tmp_path / "found.nrrd") == "export.empty"
    bring_in(patients["CT.labels"], volume)
    volume.SetOrigin(1, 2, 3)
    assert findResult(volume) is not None
    assert exported(desk, volume, tmp_path / "found.nrrd") == "export.other-geometry"


def test_what_would_be_written_elsewhere_or_not_at_all_is_refused(desk, patients, tmp_path):
    volume = load_volume(patients["CT"])
    node = bring_in(patients["CT.labels"], volume).node
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert exported(desk, volume, tmp_path / "found.nrrd") == "export.transformed"
    node.SetAndObserveTransformNodeID(None)
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")  # as of a radiotherapy plan
    assert exported(desk, volume, tmp_path / "found.nrrd") == "export.no-label-map"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [["body", "liver", "lesion"], ["lesion", "liver", "body"]])
def test_where_segments_overlap_the_smaller_one_is_written(order, desk, patients, tmp_path):
    volume = load_volume(patients["CT"])
    shape = slicer.util.arrayFromVolume(volume).shape
    boxes = {name: np.zeros(shape, np.uint8) for name in order}
    boxes["body"][:, 2:20, 2:20] = 1
    boxes["liver"][:, 4:12, 4:12] = 1
    boxes["lesion"][3:5, 6:8, 6:8] = 1
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(ROLE, volume.GetID())
    for name in order:
        node.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(boxes[name], node, name, volume)
    assert exported(desk, volume, tmp_path / "found.nrrd") is None
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "found.nrrd")))
    number = {name: order.index(name) + 1 for name in order}
    expected = boxes["body"] * np.uint8(number["body"])
    for name in ("liver", "lesion"):
        expected[boxes[name] > 0] = number[name]
    np.testing.assert_array_equal(written, expected)


def mirrored(node):
    """Count the slices of a segmentation from the other end, as a file with mirrored slices is loaded."""
    segmentation = node.GetSegmentation()
    image = imageOf(segmentation, segmentation.GetNthSegmentID(0))
    labels = readLabelMap(image)
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = 2 * labels.start[2] + labels.voxels.shape[0] - 1
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((labels.ijkToRas @ turn).ravel().tolist())
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(labels.voxels.shape)
    voxels[:] = voxels[::-1].copy()
    image.SetImageToWorldMatrix(matrix)


def test_a_segmentation_whose_slices_count_from_the_other_end_is_written(desk, patients, tmp_path):
    volume = load_volume(patients["CT"])
    node = bring_in(patients["CT.labels"], volume).node
    mirrored(node)
    assert exported(desk, volume, tmp_path / "found.nrrd") is None
    truth = read_label_map(patients["CT.labels"]).array[0]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "found.nrrd"))), truth)


def write_series(scan, folder):
    """Write an image as the DICOM series that it could have come from; return its files, slice by slice."""
    image = sitk.Cast(sitk.ReadImage(str(scan)), sitk.sitkInt16)
    folder.mkdir()
    root, files = "1.2.826.0.1.3680043.2.1125", []
    for k in range(image.GetSize()[2]):
        slice_ = image[:, :, k]
        tags = {
            "0008|0060": "CT",
            "0010|0020": "4711",
            "0020|000d": f"{root}.1",
            "0020|000e": f"{root}.1.1",
            "0008|0018": f"{root}.1.1.{k + 1}",
            "0020|0032": "\\".join(f"{x:.6f}" for x in image.TransformIndexToPhysicalPoint((0, 0, k))),
            "0020|0037": "\\".join(f"{image.GetDirection()[3 * row + column]:.6f}" for column in (0, 1)
                                   for row in range(3)),
        }  # fmt: skip
        for key, value in tags.items():
            slice_.SetMetaData(key, value)
        files.append(folder / f"{k:03d}.dcm")
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(files[-1]))
        writer.Execute(slice_)
        written = pydicom.dcmread(files[-1])
        written.FrameOfReferenceUID = f"{root}.77"  # which ITK leaves out and a scanner does not
        written.save_as(files[-1])
    return files


def accept(folder, kind):
    """Choose the kind of file in the dialog that is about to be shown, and accept it."""
    from PySide6 import QtWidgets

    def choose():
        dialog = QtWidgets.QApplication.activeModalWidget()
        dialog.setDirectory(str(folder))
        kinds = dialog.findChild(QtWidgets.QComboBox, "fileTypeCombo")
        number = kinds.findText(kind)
        kinds.setCurrentIndex(number)
        kinds.activated.emit(number)
        dialog.accept()

    qt.QTimer.singleShot(200, choose)


def shown_in_panel(open_panel, volume):
    panel = open_panel()
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ready()
    show_result(panel, outcome_to_check(volume), volume)
    return panel.ui


def test_the_button_writes_the_kind_that_is_chosen(open_panel, edited, tmp_path):
    volume, expected = edited
    ui = shown_in_panel(open_panel, volume)
    accept(tmp_path, "NIfTI (*.nii.gz)")
    tip = ui.exportButton.toolTip
    ui.exportButton.click()
    assert not ui.exportButton.enabled
    assert ui.exportButton.toolTip == ui.resultLabel.text == "Writing segmentation.nii.gz…"
    wait_until(lambda: ui.exportButton.enabled)
    assert ui.resultLabel.text == "Written to segmentation.nii.gz."
    assert ui.exportButton.toolTip == tip
    written = sitk.ReadImage(str(tmp_path / "segmentation.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), expected)


def known_series(volume, image, folder, monkeypatch):
    """Write the image as a series that the volume was loaded from; return UID → file of what Slicer knows of it."""
    known = {str(pydicom.dcmread(file).SOPInstanceUID): str(file) for file in write_series(image, folder)}
    # Slicer's database of DICOM files is not among what slicer-core brings; all that is asked of it is a file's name.
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(fileForInstance=known.get), raising=False)
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(known))
    return known


def test_an_ending_in_capitals_is_the_same_kind_of_file(desk, edited, patients, tmp_path, monkeypatch):
    volume, _expected = edited
    known_series(volume, patients["CT"], tmp_path / "series", monkeypatch)
    assert exported(desk, volume, tmp_path / "FOUND.DCM") is None
    assert pydicom.dcmread(tmp_path / "FOUND.DCM").Modality == "SEG"


def test_the_button_writes_a_dicom_segmentation_of_the_series(open_panel, edited, patients, tmp_path, monkeypatch):
    volume, expected = edited
    known = known_series(volume, patients["CT"], tmp_path / "series", monkeypatch)
    ui = shown_in_panel(open_panel, volume)
    accept(tmp_path, "DICOM SEG (*.dcm)")
    ui.exportButton.click()
    wait_until(lambda: ui.exportButton.enabled)
    assert ui.resultLabel.text == "Written to segmentation.dcm."
    read = highdicom.seg.segread(tmp_path / "segmentation.dcm")
    assert (read.Modality, read.PatientID) == ("SEG", "4711")
    names = [read.get_segment_description(number).segment_label for number in range(1, read.number_of_segments + 1)]
    assert names == ["half a liver", *TORSO_CONTRACT.names[1:], "mine"]
    slices = read.get_pixels_by_source_instance(list(known), combine_segments=True)
    np.testing.assert_array_equal(slices, expected)
