"""Enhanced MR objects: all slices of a volume in one DICOM file, each with functional groups of its own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

ROW = np.array([0.0, 0.8, 0.6])
COLUMN = np.array([1.0, 0.0, 0.0])
NORMAL = np.cross(ROW, COLUMN)
SHAPE = (8, 10)


def _item(**values) -> pydicom.Sequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def stored_numbers(frames: int) -> np.ndarray:
    """Return other numbers for every frame, (frames, j, i)."""
    return (100 * np.arange(frames)[:, None, None] + np.arange(80).reshape(SHAPE)).astype(np.uint16)


def write_enhanced(
    path: Path,
    positions: Sequence[np.ndarray | None],
    *,
    slopes: Sequence[float] | None = None,
    orientations: Sequence[np.ndarray] | None = None,
    shared: bool = False,
) -> Path:
    """Write an oblique Enhanced MR with frames at ``positions`` (LPS mm), numbered ``stored_numbers``.

    Args:
        path: the file.
        positions: of the frames, in the order of the file; None leaves a frame without.
        slopes: of the frames' numbers; 2 for all if None. Every intercept is 10.
        orientations: rows and columns of every frame; the same if None.
        shared: orientation, spacing and slope stand once for all frames.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedMRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.826.0.1.3680043.2.1125.8.1"
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.826.0.1.3680043.2.1125.8", "1.2.826.0.1.3680043.2.1125.9"
    data.Modality, data.PatientName, data.PatientID = "MR", "Doe^Jane", "4711"
    data.Rows, data.Columns = SHAPE
    data.NumberOfFrames, data.SamplesPerPixel = len(positions), 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0

    def groups(number: int) -> Dataset:
        turn = np.concatenate([ROW, COLUMN]) if orientations is None else orientations[number]
        own = Dataset()
        own.PlaneOrientationSequence = _item(ImageOrientationPatient=[f"{x:.6f}" for x in turn])
        own.PixelMeasuresSequence = _item(PixelSpacing=["0.9", "0.7"], SliceThickness="5")
        slope = "2" if slopes is None else str(slopes[number])
        own.PixelValueTransformationSequence = _item(RescaleIntercept="10", RescaleSlope=slope, RescaleType="US")
        return own

    frames = []
    for number, position in enumerate(positions):
        frame = Dataset() if shared else groups(number)
        if position is not None:
            frame.PlanePositionSequence = _item(ImagePositionPatient=[f"{x:.6f}" for x in position])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    data.SharedFunctionalGroupsSequence = pydicom.Sequence([groups(0) if shared else Dataset()])
    data.PixelData = stored_numbers(len(positions)).tobytes()
    path.parent.mkdir(exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
