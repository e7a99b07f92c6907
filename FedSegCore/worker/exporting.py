"""A segmentation of the scene, as its user has left it, as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from FedSegCore.common.errors import UsageError
from FedSegCore.common.files import sha256_of
from FedSegCore.common.progress import Progress

Byte = Annotated[int, Field(ge=0, le=255)]


class ExportedSegment(BaseModel):
    """A segment.

    Attributes:
        name: what people read.
        value: its number in the label map.
        color: RGB 0..255.
        terminology: Slicer's serialised entry, ``""`` if it has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: Annotated[int, Field(ge=1, le=255)]
    color: tuple[Byte, Byte, Byte]
    terminology: str = ""


def export_segmentation(
    labels: Path, segments: Sequence[ExportedSegment], made_by: str, output: Path, series: Sequence[Path],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Write a label map with its segments in the format that the name of ``output`` says.

    Args:
        labels: the label map.
        segments: what is in it.
        made_by: the release, as the name of the algorithm in DICOM.
        output: ends in ``.seg.nrrd``, ``.nrrd``, ``.nii.gz``, ``.nii``, ``.mha`` or ``.dcm``.
        series: the files of the DICOM series, for ``.dcm`` only.
        progress: cancels before the file is written.

    Raises:
        UsageError: ``file.suffix``, ``output.no-dicom``.
        BadInputError: ``image.*``, ``labels.*``, ``output.dicom-*``.
        CannotDoHereError: ``file.unwritable``.
    """
    from FedSegCore.volumes import dicom_seg
    from FedSegCore.volumes.reading import read_label_map
    from FedSegCore.volumes.segmentation_file import label_of_segment, write_segmentation

    progress.update(0.0, "reading the segmentation")
    shown = [label_of_segment(s.name[:64] or "segment", s.value, s.color, s.terminology) for s in segments]
    voxels = read_label_map(labels)
    progress.update(0.3, "writing the file")
    if not output.name.lower().endswith(dicom_seg.SUFFIX):
        write_segmentation(voxels, shown, output)
    elif series:
        dicom_seg.write_dicom_seg(voxels, shown, series, made_by, output)
    else:
        raise UsageError(
            "output.no-dicom",
            "A DICOM segmentation refers to the slices it was made of, and this volume was not loaded from DICOM.",
            "Write .seg.nrrd or .nii.gz instead.",
        )
    progress.update(1.0, "done")
    return {"sha256": sha256_of(output)}
