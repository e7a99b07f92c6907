"""A worker's segmentation file in the scene: names, codes, colors, place; then as Slicer's own views draw it."""

import numpy as np
import pytest
import slicer
import vtk
from FedSegSlicerLib.ResultImport import ResultImport
from FedSegSlicerLib.ResultPlace import VolumePlace
from FedSegSlicerLib.SegmentationResult import findResult, resultRows, undo
from scene_helpers import bring_in, load_volume
from without_qt import EventLoop

from FedSegCore.common.progress import Progress
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.display_pieces import write_pieces
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.reading import read_label_map
from FedSegCore.volumes.segmentation_file import terminology_entry

pytestmark = pytest.mark.slicer


def load(path, volume, release):
    return bring_in(path, volume, release).node


def test_segments_have_the_contracts_names_codes_colors_and_voxels(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(5)] == list(TORSO_CONTRACT.names)
    truth = read_label_map(patients["CT.labels"]).array[0]
    for number, label in enumerate(TORSO_CONTRACT.labels):
        segment = segmentation.GetNthSegment(number)
        np.testing.assert_allclose(segment.GetColor(), np.array(label.colour) / 255, atol=1e-3)
        entry = vtk.mutable("")
        assert segment.GetTag("TerminologyEntry", entry)
        assert str(entry) == terminology_entry(label)
        own = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(number), volume)
        np.testing.assert_array_equal(own > 0, truth == label.value)
    assert node.GetName() == "scan segmentation"
    reference = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(reference) is volume


def test_it_lies_beside_its_volume_in_the_subject_hierarchy(patients):
    volume = load_volume(patients["CT"])
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, volume)
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_views_that_showed_another_volume_show_all_of_this_one(patients, main_window):
    elsewhere, volume = load_volume(patients["MR"], "elsewhere"), load_volume(patients["CT"])
    matrix = vtk.vtkMatrix4x4()
    elsewhere.GetIJKToRASMatrix(matrix)
    matrix.SetElement(0, 3, matrix.GetElement(0, 3) - 2000.0)
    matrix.SetElement(1, 3, matrix.GetElement(1, 3) + 2000.0)
    elsewhere.SetIJKToRASMatrix(matrix)
    main_window.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert len(main_window.centers()) == 3
    slicer.util.setSliceViewerLayers(background=elsewhere, fit=True)
    load(patients["CT.labels"], volume, "tiny-CT-v2")
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    assert main_window.shown() == [volume] * 3
    for center, height in zip(main_window.centers(), main_window.heights(), strict=True):
        assert all(bounds[2 * axis] < center[axis] < bounds[2 * axis + 1] for axis in range(3))
        assert height < 1000.0


def test_views_that_show_the_volume_already_stay_zoomed_in(patients, main_window):
    volume = load_volume(patients["CT"])
    main_window.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert main_window.shown() == [None] * 3
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    fitted = main_window.heights()
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / 3, height / 3, depth)
    load(patients["CT.labels"], volume, "tiny-CT-v2")
    assert main_window.heights() == pytest.approx([height / 3 for height in fitted])


def test_results_of_two_volumes_do_not_replace_each_other(patients):
    first, second = load_volume(patients["CT"], "first"), load_volume(patients["MR"], "second")
    one = load(patients["CT.labels"], first, "tiny-CT-v2")
    two = load(patients["MR.labels"], second, "tiny-MR-v1")
    assert one is not two
    assert (findResult(first), findResult(second)) == (one, two)
    again = load(patients["CT.labels"], first, "tiny-CT-v1")
    assert again is one
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


@pytest.mark.parametrize("damage", ["missing", "cut short", "another type", "too large", "wild triangles"])
def test_an_unreadable_result_leaves_the_former_one(damage, patients, tmp_path):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    described = write_pieces(read_label_map(patients["CT.labels"]), TORSO_CONTRACT.labels, tmp_path, Progress())
    file = tmp_path / "labels.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "another type":
        np.save(file, np.zeros((2, 2, 2)))
    elif damage == "too large":
        np.save(file, np.zeros((500, 2, 2), np.uint8))
    else:
        np.save(tmp_path / "triangles-1.npy", np.array([[0, 1, 10**9]]))
    loop, done, problems = EventLoop(), [], []
    answer = {"pieces": described, "release": "tiny-CT-v1"}
    ResultImport(loop.callLater, volume, VolumePlace(volume), tmp_path, answer, done.append, problems.append)
    assert loop.runUntil(lambda: done or problems, 10)
    assert [error.code for error in problems] == ["result.unreadable"]
    assert findResult(volume) is node
    assert node.GetSegmentation().GetNumberOfSegments() == 5
    assert node.GetAttribute("FedSegSlicer.Release") == "tiny-CT-v2"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def apply_transform(volume):
    volume.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (lambda volume: volume.SetOrigin(1, 2, 3), "volume.changed"),
        (apply_transform, "volume.changed"),
        (slicer.mrmlScene.RemoveNode, "volume.gone"),
        (lambda _volume: slicer.mrmlScene.Clear(False), "volume.gone"),
    ],
    ids=["moved", "transformed", "removed", "scene closed"],
)
def test_what_happens_to_the_volume_while_the_result_comes_in_is_told(happens, code, patients, tmp_path):
    volume = load_volume(patients["CT"])
    described = write_pieces(read_label_map(patients["CT.labels"]), TORSO_CONTRACT.labels, tmp_path, Progress())
    loop, done, problems = EventLoop(), [], []
    answer = {"pieces": described, "release": "tiny-CT-v1"}
    ResultImport(loop.callLater, volume, VolumePlace(volume), tmp_path, answer, done.append, problems.append)
    happens(volume)
    assert loop.runUntil(lambda: done or problems, 10)
    assert [error.code for error in problems] == [code]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_stopped_import_leaves_no_trace(patients, tmp_path):
    volume = load_volume(patients["CT"])
    described = write_pieces(read_label_map(patients["CT.labels"]), TORSO_CONTRACT.labels, tmp_path, Progress())
    loop, told = EventLoop(), []
    answer = {"pieces": described, "release": "tiny-CT-v1"}
    coming = ResultImport(loop.callLater, volume, VolumePlace(volume), tmp_path, answer, told.append, told.append)
    coming.stop()
    loop.runUntil(lambda: False, 0.3)
    assert told == []
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_rows_say_what_was_found_and_what_was_not(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    segments = [
        {"name": "liver", "value": 1, "code": "10200004", "voxels": 9, "volume_ml": 1400.5, "area_mm2": None,
         "mean_intensity": 61.2},
        {"name": "gallbladder", "value": 9, "code": "28231008", "voxels": 0, "volume_ml": None, "area_mm2": 0.0,
         "mean_intensity": None},
    ]  # fmt: skip
    doubts = [{"label": "gallbladder", "code": "not-found", "reason": "it was not found"}]
    node.GetSegmentation().GetSegment("Segment_1").SetName("Leber")
    rows = resultRows(node, segments, doubts)
    assert [(row.volumeMl, row.areaMm2, row.voxels) for row in rows] == [(1400.5, None, 9), (None, 0.0, 0)]
    assert (rows[0].name, rows[0].color, rows[0].volumeMl) == ("Leber", TORSO_CONTRACT.labels[0].colour, 1400.5)
    assert (rows[0].segmentId, rows[0].meanIntensity, rows[0].checks) == ("Segment_1", 61.2, ())
    assert (rows[1].segmentId, rows[1].meanIntensity, rows[1].checks) == ("", None, ("it was not found",))


def test_surfaces_are_made_and_shown(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    assert node.GetDisplayNode().GetVisibility3D()
    surface = vtk.vtkPolyData()
    assert node.GetClosedSurfaceRepresentation(findResult(volume).GetSegmentation().GetNthSegmentID(0), surface)
    assert surface.GetNumberOfPoints() > 100
    # The surface encloses about what the voxels do.
    mass = vtk.vtkMassProperties()
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(surface)
    mass.SetInputConnection(triangles.GetOutputPort())
    truth = read_label_map(patients["CT.labels"])
    voxels_ml = (truth.array == 1).sum() * truth.grid.voxel_volume_ml()
    assert mass.GetVolume() / 1000 == pytest.approx(voxels_ml, rel=0.15)


def test_surfaces_follow_a_second_result(patients, tmp_path):
    from dataclasses import replace

    from FedSegCore.volumes.segmentation_file import write_segmentation

    volume = load_volume(patients["CT"])
    first = load(patients["CT.labels"], volume, "tiny-CT-v1")
    before, after = vtk.vtkPolyData(), vtk.vtkPolyData()
    assert first.GetClosedSurfaceRepresentation(first.GetSegmentation().GetNthSegmentID(0), before)
    truth = read_label_map(patients["CT.labels"])
    kept = truth.array.copy()
    kept[:, :, :, : kept.shape[3] // 4] = 0  # a slab of the liver is gone
    write_segmentation(replace(truth, array=kept), TORSO_CONTRACT.labels, tmp_path / "second.seg.nrrd")
    second = load(tmp_path / "second.seg.nrrd", volume, "tiny-CT-v2")
    assert second is first
    assert second.GetClosedSurfaceRepresentation(second.GetSegmentation().GetNthSegmentID(0), after)
    left, right = before.GetBounds()[:2], after.GetBounds()[:2]
    assert abs(left[0] - right[0]) + abs(left[1] - right[1]) > 5


def test_undo_brings_back_the_users_work_and_once_more_the_result(patients, tmp_path):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v1")
    own = node.GetSegmentation().AddEmptySegment("mine", "my tumor")
    edited = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", volume).copy()
    edited[: edited.shape[0] // 2] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, "Segment_1", volume)
    former = bring_in(patients["CT.labels"], volume, "tiny-CT-v2")
    truth = read_label_map(patients["CT.labels"]).array[0] == 1
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", volume) > 0, truth)
    assert node.GetSegmentation().GetSegment(own) is None
    back = undo(former)
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", volume), edited)
    assert node.GetSegmentation().GetSegment(own).GetName() == "my tumor"
    assert node.GetAttribute("FedSegSlicer.Release") == "tiny-CT-v1"
    undo(back)
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", volume) > 0, truth)
    assert node.GetAttribute("FedSegSlicer.Release") == "tiny-CT-v2"


def test_undo_of_the_first_run_removes_the_result(patients):
    volume = load_volume(patients["CT"])
    assert undo(bring_in(patients["CT.labels"], volume)) is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_views_and_lists_are_told_of_what_came_and_went(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v1")
    node.GetSegmentation().AddEmptySegment("mine", "my tumor")
    told = []
    for event in (slicer.vtkSegmentation.SegmentRemoved, slicer.vtkSegmentation.SegmentAdded,
                  slicer.vtkSegmentation.SourceRepresentationModified):  # fmt: skip
        node.AddObserver(event, lambda _caller, name: told.append(str(name)))
    former = bring_in(patients["CT.labels"], volume, "tiny-CT-v2")
    assert len(told) == 2  # removed, and other voxels
    told.clear()
    undo(former)
    assert len(told) == 2  # added, and other voxels


def test_names_and_colors_the_user_changed_are_kept_and_others_are_the_new_releases(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v1")
    segmentation = node.GetSegmentation()
    segmentation.GetSegment("Segment_1").SetName("Leber")
    segmentation.GetSegment("Segment_2").SetColor(0.1, 0.2, 0.3)
    labels = list(TORSO_CONTRACT.labels)
    renamed = [labels[0].model_copy(update={"name": "whole liver"}), *labels[1:3],
               labels[3].model_copy(update={"name": "milza"}), labels[4]]  # fmt: skip
    bring_in(patients["CT.labels"], volume, "tiny-CT-v2", LabelContract(labels=tuple(renamed)))
    new = node.GetSegmentation()
    assert new is not segmentation
    assert [new.GetSegment(f"Segment_{n}").GetName() for n in range(1, 6)] == [
        "Leber", "right kidney", "left kidney", "milza", "lesion"]  # fmt: skip
    np.testing.assert_allclose(new.GetSegment("Segment_2").GetColor(), (0.1, 0.2, 0.3), atol=1e-6)
    np.testing.assert_allclose(new.GetSegment("Segment_1").GetColor(), np.array(labels[0].colour) / 255, atol=1e-3)
    # and they stay through a third run
    bring_in(patients["CT.labels"], volume, "tiny-CT-v2")
    assert node.GetSegmentation().GetSegment("Segment_1").GetName() == "Leber"


def test_a_changed_name_is_found_again_by_its_code_where_numbers_differ(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v1")
    node.GetSegmentation().GetSegment("Segment_4").SetName("Milz")
    labels = TORSO_CONTRACT.labels
    order = [3, 0, 1, 2, 4]  # another contract: the spleen comes first
    other = LabelContract(labels=tuple(labels[n].model_copy(update={"value": v}) for v, n in enumerate(order, start=1)))
    bring_in(patients["CT.labels"], volume, "other-v1", other)
    names = [node.GetSegmentation().GetSegment(f"Segment_{n}").GetName() for n in range(1, 6)]
    assert names == ["Milz", "liver", "right kidney", "left kidney", "lesion"]
