"""A result that its user has edited, exported by the real worker and read back by other programs."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from FedSegSlicerLib.SegmentationResult import findResult
from scene_helpers import bring_in, load_volume
from test_segment_logic import Desk

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
