"""A DICOM segmentation read back by pydicom and highdicom: voxels at their places, codes, colours, references."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from test_dicom import write_series

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.dicom_seg import source_files, write_dicom_seg
from FedSegCore.volumes.reading import read_volume


def whole_series(folder, **more):
    """Write an oblique series with the tags that ITK leaves out and a scanner does not."""
    write_series(folder, **more)
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.1125.77"
        slice_.save_as(path)
    return folder


def some_labels(image):
    labels = np.zeros((1, *image.grid.shape), np.uint8)
    labels[0, 1:3, 2:5, 3:9] = 1
    labels[0, 3, 1:4, 0:2] = 4
    labels[0, 0, 7, 9] = 5
    return image.with_array(labels)


def test_voxels_codes_and_references_survive(tmp_path):
    series = whole_series(tmp_path / "ct")
    image = read_volume(series)
    labels = some_labels(image)
    shown = [label for label in TORSO_CONTRACT.labels if label.value != 2]  # numbers with a gap
    write_dicom_seg(labels, shown, list(series.iterdir()), "demo-CT-v1", tmp_path / "found.dcm")
    read = highdicom.seg.segread(tmp_path / "found.dcm")
    sources = {str(pydicom.dcmread(path).SOPInstanceUID): pydicom.dcmread(path) for path in series.iterdir()}
    assert (read.Modality, read.PatientID, read.number_of_segments) == ("SEG", "4711", 4)
    assert {read.StudyInstanceUID} == {source.StudyInstanceUID for source in sources.values()}
    for number, label in enumerate(shown, start=1):
        described = read.get_segment_description(number)
        kind = described.segmented_property_type
        assert (described.segment_label, kind.value, kind.scheme_designator) == (label.name, label.type.code, "SCT")
        assert described.segmented_property_category.value == label.category.code
        assert described.algorithm_identification.name == "demo-CT-v1"
        modifiers = described.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [code.CodeValue for code in modifiers] == ([label.modifier.code] if label.modifier else [])
    # Every frame names the slice it lies on; the slice's own position says where in the volume that is.
    found = np.zeros((4, *labels.array.shape[1:]), bool)
    frames = read.pixel_array.reshape(-1, *labels.array.shape[2:])
    origin, normal = np.array(image.grid.origin), np.reshape(image.grid.direction, (3, 3))[:, 2]
    for pixels, groups in zip(frames, read.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        k = round(float((place - origin) @ normal) / image.grid.spacing[2])
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(np.array(sources[source].ImagePositionPatient, float), place, atol=1e-4)
        found[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1, k] |= pixels > 0
    for number, label in enumerate(shown):
        np.testing.assert_array_equal(found[number], labels.array[0] == label.value, err_msg=label.name)


def test_a_result_without_any_voxel_is_written_too(tmp_path):
    series = whole_series(tmp_path / "ct")
    image = read_volume(series)
    empty = image.with_array(np.zeros((1, *image.grid.shape), np.uint8))
    write_dicom_seg(empty, TORSO_CONTRACT.labels, list(series.iterdir()), "demo-CT-v1", tmp_path / "found.dcm")
    read = highdicom.seg.segread(tmp_path / "found.dcm")
    assert read.number_of_segments == 5
    assert not read.pixel_array.any()


def test_what_cannot_be_referred_to_is_refused(tmp_path):
    write_series(tmp_path / "ct")
    image = read_volume(tmp_path / "ct")

    def refusal(image, files):
        with pytest.raises(BadInputError) as refused:
            write_dicom_seg(some_labels(image), TORSO_CONTRACT.labels, files, "demo", tmp_path / "found.dcm")
        assert not (tmp_path / "found.dcm").exists()
        return refused.value.code

    assert refusal(image, source_files(tmp_path / "ct")) == "output.dicom-incomplete"  # no frame of reference
    files = list(whole_series(tmp_path / "whole").iterdir())
    assert refusal(image, files[1:]) == "output.dicom-differs"
    x, y, z = image.grid.origin
    moved = replace(image, grid=replace(image.grid, origin=(x + 1, y, z)))
    assert refusal(moved, files) == "output.dicom-differs"
    with pytest.raises(BadInputError) as refused:
        source_files(files[0])
    assert refused.value.code == "output.no-dicom"


def test_an_unwritable_place_is_told(tmp_path):
    series = whole_series(tmp_path / "ct")
    labels = some_labels(read_volume(series))
    with pytest.raises(CannotDoHereError) as refused:
        write_dicom_seg(
            labels, TORSO_CONTRACT.labels, list(series.iterdir()), "demo", tmp_path / "nowhere" / "found.dcm"
        )
    assert refused.value.code == "file.unwritable"


@pytest.mark.parametrize("charset", [None, "ISO_IR 100", "ISO_IR 192"])
def test_names_in_any_script_are_read_back_as_they_were(tmp_path, charset):
    series = whole_series(tmp_path / "ct")
    patient = "Doe^Jane" if charset is None else "Müller^Jürgen"
    for path in series.iterdir():
        slice_ = pydicom.dcmread(path)
        if charset is None:
            slice_.pop("SpecificCharacterSet", None)
        else:
            slice_.SpecificCharacterSet = charset
        slice_.PatientName, slice_.StudyDescription = patient, "Bauch" if charset is None else "Bäuche"
        slice_.save_as(path)
    names = ("größe", "Leber 肝", "left\\right")
    shown = [label.model_copy(update={"name": name}) for label, name in zip(TORSO_CONTRACT.labels, names, strict=False)]
    labels = some_labels(read_volume(series))
    write_dicom_seg(labels, shown, list(series.iterdir()), "x" * 70, tmp_path / "found.dcm")
    read = pydicom.dcmread(tmp_path / "found.dcm")
    assert [segment.SegmentLabel for segment in read.SegmentSequence] == ["größe", "Leber 肝", "left/right"]
    assert str(read.PatientName) == patient
    assert read.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "x" * 64


def test_a_series_that_is_gone_or_would_be_spoilt_is_told(tmp_path):
    series = whole_series(tmp_path / "ct")
    labels, files = some_labels(read_volume(series)), list(series.iterdir())
    with pytest.raises(UsageError, match=r"output\.in-series"):
        write_dicom_seg(labels, TORSO_CONTRACT.labels, files, "demo", series / "found.dcm")
    assert len(read_volume(series).array[0]) == 5
    for path in files:
        path.unlink()
    with pytest.raises(BadInputError, match=r"output\.dicom-gone"):
        write_dicom_seg(labels, TORSO_CONTRACT.labels, files, "demo", tmp_path / "found.dcm")


def test_tags_that_contradict_each_other_are_not_called_missing(tmp_path):
    series = whole_series(tmp_path / "ct")
    labels = some_labels(read_volume(series))
    path = next(series.iterdir())
    slice_ = pydicom.dcmread(path)
    slice_.FrameOfReferenceUID = "1.2.826.0.1.3680043.2.1125.78"
    slice_.save_as(path)
    with pytest.raises(BadInputError, match=r"output\.dicom-unsuitable"):
        write_dicom_seg(labels, TORSO_CONTRACT.labels, list(series.iterdir()), "demo", tmp_path / "found.dcm")
