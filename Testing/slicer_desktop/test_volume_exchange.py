"""Volumes reach the worker's file with their voxels and place, and unfit ones are refused in words."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.VolumeExchange import VolumeExchange, checkVolume, knownModality, takeSnapshot, writeNrrd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from without_qt import EventLoop

pytestmark = pytest.mark.slicer


def volume_with(array, matrix):
    flat = vtk.vtkMatrix4x4()
    flat.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return slicer.util.addVolumeFromArray(array, ijkToRAS=flat, name="scan")


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
    flip=st.booleans(),
    dtype=st.sampled_from(["int16", "uint8", "uint16", "int32", "float32", "float64"]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_place_and_type_survives(angles, spacing, origin, flip, dtype, tmp_path):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if flip:
        direction[:, 2] *= -1
    matrix = np.eye(4)
    matrix[:3, :3] = direction * spacing
    matrix[:3, 3] = origin
    array = (np.arange(2 * 3 * 4).reshape(2, 3, 4) * 7 % 120).astype(dtype)
    volume = volume_with(array, matrix)
    writeNrrd(takeSnapshot(volume), tmp_path / "v.nrrd")
    slicer.mrmlScene.RemoveNode(volume)
    image = sitk.ReadImage(str(tmp_path / "v.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    assert sitk.GetArrayFromImage(image).dtype == np.dtype(dtype)
    # SimpleITK is LPS, the scene RAS: the first two coordinates change sign.
    to_ras = np.diag([-1.0, -1.0, 1.0])
    for index in ((0, 0, 0), (3, 2, 1)):
        expected = matrix[:3, :3] @ index + matrix[:3, 3]
        np.testing.assert_allclose(to_ras @ image.TransformIndexToPhysicalPoint(index), expected, atol=1e-6)


def test_color_volumes_keep_their_channels(tmp_path):
    array = np.arange(1 * 3 * 4 * 3, dtype=np.uint8).reshape(1, 3, 4, 3)
    node = slicer.util.addVolumeFromArray(array, nodeClassName="vtkMRMLVectorVolumeNode")
    checkVolume(node)
    writeNrrd(takeSnapshot(node), tmp_path / "v.nrrd")
    image = sitk.ReadImage(str(tmp_path / "v.nrrd"))
    assert image.GetNumberOfComponentsPerPixel() == 3
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)


def test_no_name_of_the_scene_is_written(tmp_path):
    node = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16), name="Doe^Jane")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3.secret")
    writeNrrd(takeSnapshot(node), tmp_path / "v.nrrd")
    content = (tmp_path / "v.nrrd").read_bytes()
    assert b"Doe" not in content
    assert b"secret" not in content


def _transformed():
    node = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16))
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    return node


def _of_a_sequence():
    node = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16))
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    sequence.SetDataNodeAtValue(node, "0")
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(node, sequence, False)
    return node


UNFIT = {
    "volume.none": lambda: None,
    "volume.empty": lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"),
    "volume.labels": lambda: slicer.util.addVolumeFromArray(
        np.ones((2, 2, 2), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode"
    ),
    "volume.transformed": _transformed,
    "volume.four-dimensional": _of_a_sequence,
    "volume.components": lambda: slicer.util.addVolumeFromArray(
        np.ones((2, 2, 2, 6), np.float32), nodeClassName="vtkMRMLVectorVolumeNode"
    ),
}


@pytest.mark.parametrize("code", UNFIT)
def test_unfit_volumes_are_refused(code):
    with pytest.raises(UserError) as refused:
        checkVolume(UNFIT[code]())
    assert refused.value.code == code
    assert refused.value.cause
    assert refused.value.remedy


def exported(exchange, loop, node):
    done, problems = [], []
    exchange.export(node, done.append, problems.append)
    assert loop.runUntil(lambda: done or problems, 10)
    return (done or problems)[0]


def test_an_unchanged_volume_is_written_once_and_a_changed_one_again():
    loop = EventLoop()
    exchange = VolumeExchange(loop.callLater)
    node = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16))
    first = exported(exchange, loop, node)
    assert exported(exchange, loop, node) == first
    slicer.util.arrayFromVolume(node)[0, 0, 0] = 9
    slicer.util.arrayFromVolumeModified(node)
    second = exported(exchange, loop, node)
    assert second != first
    assert not first.exists()
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(second)))[0, 0, 0] == 9
    node.SetOrigin(1, 2, 3)
    assert exported(exchange, loop, node) != second
    exchange.clear()
    assert not second.parent.exists()


def test_a_file_that_is_needed_is_not_deleted_for_another_volume():
    loop = EventLoop()
    exchange = VolumeExchange(loop.callLater)
    nodes = [slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16)) for _each in range(2)]
    first = exported(exchange, loop, nodes[0])
    exchange.keep(first)
    exchange.keep(first)
    second = exported(exchange, loop, nodes[1])
    exchange.letGo(first)
    assert (first.exists(), second.exists()) == (True, True)
    exchange.letGo(first)
    exchange.letGo(second)  # nobody has kept it: the volume has not changed, and it is used again
    assert (first.exists(), second.exists()) == (False, True)
    both = []
    for node in nodes:  # at the same time
        exchange.export(node, both.append, both.append)
    assert loop.runUntil(lambda: len(both) == 2, 10)
    assert [path for path in second.parent.iterdir() if path.suffix == ".nrrd"] == [both[-1]]
    exchange.clear()


def test_a_multi_volume_is_not_sent_where_it_cannot_be_segmented():
    class MultiVolume(slicer.vtkMRMLScalarVolumeNode):
        """Slicer's own class comes with an extension; only its name counts here."""

        def IsA(self, name):
            return name == "vtkMRMLMultiVolumeNode"

    node = MultiVolume()
    node.SetAndObserveImageData(slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16)).GetImageData())
    with pytest.raises(UserError) as refused:
        checkVolume(node)
    assert refused.value.code == "volume.multi-volume"
    assert "volume sequence" in refused.value.remedy


def test_what_only_segment_can_do_is_not_promised_elsewhere():
    with pytest.raises(UserError) as refused:
        checkVolume(_of_a_sequence())
    assert "Several volumes" not in refused.value.remedy
    assert "Clone" in refused.value.remedy


def test_a_full_disk_is_told(monkeypatch):
    from FedSegSlicerLib import VolumeExchange as module

    def no_space(snapshot, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "writeNrrd", no_space)
    loop = EventLoop()
    exchange = VolumeExchange(loop.callLater)
    problem = exported(exchange, loop, slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16)))
    assert problem.code == "disk.full"
    exchange.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on file sizes plays the full disk")
def test_what_a_full_disk_has_taken_of_a_volume_is_given_back():
    import resource
    import signal

    loop = EventLoop()
    exchange = VolumeExchange(loop.callLater)
    volume = slicer.util.addVolumeFromArray(np.ones((20, 30, 40), np.int16))
    folder = exchange.folder()
    before = sorted(folder.iterdir())
    former, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        assert exported(exchange, loop, volume).code == "disk.full"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, former)
    assert sorted(folder.iterdir()) == before
    assert exported(exchange, loop, volume).is_file()
    exchange.clear()


@pytest.mark.parametrize(("told", "known"), [("MR", "MR"), ("", None), ("not a code", None)])
def test_modality_of_a_series_is_known(told, known):
    node = slicer.util.addVolumeFromArray(np.ones((2, 2, 2), np.int16))
    assert knownModality(node) is None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", told)
    assert knownModality(node) == known
