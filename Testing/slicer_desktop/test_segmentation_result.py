"""A worker's segmentation file in the scene: names, codes, colors, place; then as Slicer's own views draw it."""

import hashlib

import numpy as np
import pytest
import slicer
import vtk
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.SegmentationResult import findResult, loadResult, resultRows, showResult
from scene_helpers import load_volume

from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.reading import read_label_map
from FedSegCore.volumes.segmentation_file import terminology_entry

pytestmark = pytest.mark.slicer


def load(path, volume, release):
    return loadResult(path, hashlib.sha256(path.read_bytes()).hexdigest(), volume, release)


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


def test_results_of_two_volumes_do_not_replace_each_other(patients):
    first, second = load_volume(patients["CT"], "first"), load_volume(patients["MR"], "second")
    one = load(patients["CT.labels"], first, "tiny-CT-v2")
    two = load(patients["MR.labels"], second, "tiny-MR-v1")
    assert one is not two
    assert (findResult(first), findResult(second)) == (one, two)
    again = load(patients["CT.labels"], first, "tiny-CT-v1")
    assert again is one
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


def test_an_unreadable_result_leaves_the_former_one(patients, tmp_path):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    broken = tmp_path / "broken.seg.nrrd"
    broken.write_bytes(patients["CT.labels"].read_bytes()[:200])
    whole = hashlib.sha256(patients["CT.labels"].read_bytes()).hexdigest()
    with pytest.raises(UserError) as refused:
        loadResult(broken, whole, volume, "tiny-CT-v2")
    assert refused.value.code == "result.unreadable"
    assert findResult(volume) is node
    assert node.GetSegmentation().GetNumberOfSegments() == 5
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_rows_say_what_was_found_and_what_was_not(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    segments = [{"name": "liver", "value": 1, "code": "10200004", "volume_ml": 1400.5},
                {"name": "gallbladder", "value": 9, "code": "28231008", "volume_ml": 0.0}]  # fmt: skip
    rows = resultRows(node, segments)
    assert (rows[0].name, rows[0].color, rows[0].volumeMl) == ("liver", TORSO_CONTRACT.labels[0].colour, 1400.5)
    assert rows[0].segmentId
    assert rows[1].segmentId == ""


def test_surfaces_are_made_and_shown(patients):
    volume = load_volume(patients["CT"])
    node = load(patients["CT.labels"], volume, "tiny-CT-v2")
    showResult(node, volume)
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
    showResult(first, volume)
    before, after = vtk.vtkPolyData(), vtk.vtkPolyData()
    assert first.GetClosedSurfaceRepresentation(first.GetSegmentation().GetNthSegmentID(0), before)
    truth = read_label_map(patients["CT.labels"])
    kept = truth.array.copy()
    kept[:, :, :, : kept.shape[3] // 4] = 0  # a slab of the liver is gone
    write_segmentation(replace(truth, array=kept), TORSO_CONTRACT.labels, tmp_path / "second.seg.nrrd")
    second = load(tmp_path / "second.seg.nrrd", volume, "tiny-CT-v2")
    showResult(second, volume)
    assert second is first
    assert second.GetClosedSurfaceRepresentation(second.GetSegmentation().GetNthSegmentID(0), after)
    left, right = before.GetBounds()[:2], after.GetBounds()[:2]
    assert abs(left[0] - right[0]) + abs(left[1] - right[1]) > 5
