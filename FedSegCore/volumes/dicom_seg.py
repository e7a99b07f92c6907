"""A segmentation of a DICOM series as DICOM SEG, which hospital archives and viewers keep beside the series."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from FedSegCore import __version__
from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.files import whole_file
from FedSegCore.volumes.dicom import series_files
from FedSegCore.volumes.labels import CodedTerm, Label
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import unwritable

SUFFIX = ".dcm"
_SERIES_NUMBER = 9100
_REPEATED = (
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)


def source_files(image: Path) -> Sequence[str]:
    """Return the files of a folder with one DICOM series.

    Raises:
        BadInputError: ``output.no-dicom``, ``dicom.*``.
    """
    if not image.is_dir():
        raise BadInputError(
            "output.no-dicom",
            "A DICOM segmentation refers to the slices it was made of, and this image is no DICOM series.",
            "Give the folder of the series as the image, or write .seg.nrrd or .nii.gz.",
        )
    return series_files(image)


def write_dicom_seg(
    labels: Volume, shown: Sequence[Label], files: Sequence[str | Path], made_by: str, path: Path
) -> None:
    """Write a binary DICOM SEG object: one segment for each label, with its codes, laterality and colour.

    It takes the patient and the study from the series, as it must to be found beside it.

    Args:
        labels: (1, k, j, i) of contract values on the grid that the series' slices form.
        shown: the labels that become segments, also where they are empty.
        files: the series' slices, in any order.
        made_by: the release, as the name of the algorithm; DICOM has room for 64 characters.
        path: the file to write; its folder exists, and is not the series'.

    Raises:
        UsageError: ``output.in-series``.
        BadInputError: ``output.dicom-frames``, ``output.dicom-gone``, ``output.dicom-incomplete``,
            ``output.dicom-unsuitable``, ``output.dicom-differs``.
        CannotDoHereError: ``file.unwritable``.
    """
    refuse_beside(files, path)
    sources = _read(files)
    if any("NumberOfFrames" in source for source in sources):
        raise BadInputError(
            "output.dicom-frames",
            "This series keeps several slices in one file, for which no DICOM segmentation is written.",
            "Write .seg.nrrd, and let 3D Slicer export it as DICOM.",
        )
    if any(not source.get(tag) for source in sources for tag in _REPEATED):
        raise _incomplete()
    try:
        sources = _in_order(sources, labels.grid)
        for source in sources:
            source.setdefault("SliceThickness", labels.grid.spacing[2])  # may be missing in MR and in exported series
        made = _segmentation(sources, labels, shown, _text(made_by))
    except (AttributeError, KeyError) as error:
        raise _incomplete() from error
    except (TypeError, ValueError) as error:
        raise BadInputError(
            "output.dicom-unsuitable",
            "No DICOM segmentation can be made of this series: its tags contradict each other or the standard.",
            "Write .seg.nrrd or .nii.gz instead, or take the series from the archive again.",
        ) from error
    made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the series has: names of segments may be in any script
    try:
        with whole_file(path) as beside:
            made.save_as(str(beside))
    except OSError as error:
        raise unwritable() from error


def refuse_beside(files: Sequence[str | Path], path: Path) -> None:
    """Raise UsageError ``output.in-series`` for a file to write among those of the series, which is then two series."""
    if path.parent.resolve() in {Path(file).parent.resolve() for file in files}:
        raise UsageError(
            "output.in-series",
            "A DICOM segmentation in the folder of its series would make the series unreadable.",
            "Write it into another folder.",
        )


def _read(files: Sequence[str | Path]) -> list[Any]:
    import pydicom

    try:
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise BadInputError(
            "output.dicom-gone",
            "The files of the DICOM series cannot be read any more.",
            "Put the CD or network share back and try again, or write .seg.nrrd.",
        ) from error


def _text(words: str) -> str:
    """Return words as one value of a DICOM text attribute: a backslash would make them two."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", words.replace("\\", "/"))[:64]


def _in_order(sources: Sequence[Any], grid: Grid) -> list[Any]:
    """Return the slices as the grid has them; refuse those that lie elsewhere."""
    direction = np.reshape(grid.direction, (3, 3))
    ordered: dict[int, Any] = {}
    for source in sources:
        turned = np.abs(np.array(source.ImageOrientationPatient, float) - direction[:, :2].T.ravel()).max() > 1e-3
        away = np.array(source.ImagePositionPatient, float) - np.array(grid.origin)
        k = round(float(away @ direction[:, 2]) / grid.spacing[2])
        gap = np.abs(away - k * grid.spacing[2] * direction[:, 2]).max()
        if turned or gap > 0.1 * grid.spacing[2] or (source.Rows, source.Columns) != grid.shape[1:]:
            raise _elsewhere()
        ordered[k] = source
    if sorted(ordered) != list(range(grid.shape[0])) or len(sources) != grid.shape[0]:
        raise _elsewhere()
    return [ordered[k] for k in sorted(ordered)]


def _incomplete() -> BadInputError:
    return BadInputError(
        "output.dicom-incomplete",
        "The series lacks tags that a DICOM segmentation of it must repeat (study, frame of reference, ...).",
        "Write .seg.nrrd or .nii.gz instead, or take the series from the archive again.",
    )


def _elsewhere() -> BadInputError:
    return BadInputError(
        "output.dicom-differs",
        "The slices of the DICOM series are not those of the segmentation.",
        "Segment the series itself, not a cropped, resampled or moved copy of it; or write .seg.nrrd.",
    )


def _segmentation(sources: Sequence[Any], labels: Volume, shown: Sequence[Label], made_by: str) -> Any:
    import highdicom
    from highdicom.seg import Segmentation, SegmentationTypeValues

    logging.getLogger("highdicom").setLevel(logging.ERROR)  # it logs what it copies of the source
    numbers = np.zeros(256, np.uint8)
    for number, label in enumerate(shown, start=1):
        numbers[label.value] = number  # DICOM counts segments from 1 without gaps
    return Segmentation(
        source_images=sources,
        pixel_array=numbers[labels.array[0]],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, label, made_by) for number, label in enumerate(shown, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="FedSegSlicer",
        manufacturer_model_name=made_by,
        software_versions=__version__,
        device_serial_number="0",
        series_description=f"Segmentation by {made_by}"[:64],
        content_label="SEGMENTATION",
    )


def _description(number: int, label: Label, made_by: str) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    description = SegmentDescription(
        segment_number=number,
        segment_label=_text(label.name),
        segmented_property_category=_concept(label.category),
        segmented_property_type=_concept(label.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=made_by, family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        display_color=CIELabColor.from_rgb(*label.colour),
    )
    if label.modifier is not None:
        own = description.SegmentedPropertyTypeCodeSequence[0]
        own.SegmentedPropertyTypeModifierCodeSequence = [_concept(label.modifier)]
    return description


def _concept(term: CodedTerm) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=term.code, scheme_designator=term.scheme, meaning=_text(term.meaning))
