"""Label maps: whole numbers on one layer, or a coded refusal."""

import numpy as np
import pytest
from test_reading import numbers, picture, save

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.reading import read_label_map


def test_label_maps(tmp_path):
    labels = numbers("float64") % 4
    volume = read_label_map(save(tmp_path, picture(labels), "labels.nii.gz"))
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array[0], labels)
    assert read_label_map(save(tmp_path, picture(labels * 200))).array.max() == 600
    np.testing.assert_array_equal(read_label_map(save(tmp_path, picture(np.zeros((2, 3, 4), np.uint8)))).array, 0)


@pytest.mark.parametrize("bad", [0.5, -1.0, float("nan"), 1e9])
def test_scans_are_no_label_maps(tmp_path, bad):
    labels = numbers("float32") % 4
    labels[0, 0, 0] = bad
    with pytest.raises(BadInputError) as caught:
        read_label_map(save(tmp_path, picture(labels)))
    assert caught.value.code == "labels.not-integers"


def test_label_map_of_several_layers_is_refused(tmp_path):
    layers = np.zeros((2, 3, 4, 3), np.uint8)
    layers[0, 0, 0, 1] = 1
    with pytest.raises(BadInputError) as caught:
        read_label_map(save(tmp_path, picture(layers, vector=True)))
    assert caught.value.code == "labels.several-layers"


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_slicers_segmentation_whose_segments_overlap_is_refused_in_words(tmp_path, layers):
    header = (
        f"NRRD0004\ntype: uchar\ndimension: 4\nspace: left-posterior-superior\nsizes: {layers} 6 5 4\n"
        "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\n"
        "encoding: raw\nspace origin: (0,0,0)\nSegment0_ID:=Segment_1\nSegment0_Layer:=0\nSegment0_LabelValue:=1\n"
        "Segment1_ID:=Segment_2\nSegment1_Layer:=1\nSegment1_LabelValue:=1\n\n"
    )
    path = tmp_path / "overlapping.seg.nrrd"
    path.write_bytes(header.encode() + bytes(n % 2 for n in range(layers * 120)))
    with pytest.raises(BadInputError) as caught:
        read_label_map(path)
    assert caught.value.code == "labels.several-layers"
