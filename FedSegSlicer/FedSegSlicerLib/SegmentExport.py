"""A result, as its user has left it, to a file: composed on another thread, written by the worker."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from .Background import onThread
from .Errors import UserError
from .ResultImport import ijkToRasOf
from .SegmentationResult import RELEASE
from .VolumeExchange import VolumeExchange, VolumeSnapshot, takeSnapshot, unwritable, writeNrrd
from .WorkerProcess import CallLater
from .WorkerSession import WorkerSession

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".dcm")


@dataclass(frozen=True)
class _Layer:
    """A segment's voxels where they are.

    Attributes:
        voxels: (k, j, i), shared with the scene and with other segments.
        start: (i, j, k) of its first voxel in the volume.
        value: what the segment's voxels hold.
        number: what they get in the file.
    """

    voxels: "np.ndarray"
    start: tuple[int, int, int]
    value: int
    number: int


class SegmentExport:
    """Writes segmentations of the scene; nothing waits.

    Args:
        session: the worker.
        callLater: see CallLater.
    """

    def __init__(self, session: WorkerSession, callLater: CallLater) -> None:
        self._session = session
        self._callLater = callLater

    def export(
        self,
        node: "vtkMRMLSegmentationNode",
        volumeNode: "vtkMRMLScalarVolumeNode",
        output: Path,
        onDone: Callable[[], None],
        onError: Callable[[UserError], None],
    ) -> None:
        """Write the segmentation on the volume's own voxels; where segments overlap, the later one is written.

        Args:
            node: the segmentation.
            volumeNode: the image whose voxels the file gets.
            output: ends in one of ``SUFFIXES``.
            onDone: called when the file is there, whole.
            onError: called with what went wrong; then there is no file, or the former one.
        """
        exchange = VolumeExchange(self._callLater)
        try:
            layers, segments = layersOf(node, volumeNode)
            written = exchange.folder() / "labels.nrrd"
        except UserError as error:
            self._callLater(0, lambda error=error: onError(error))
            return
        snapshot = takeSnapshot(volumeNode)
        order = {
            "labels": str(written),
            "segments": segments,
            "made_by": (node.GetAttribute(RELEASE) or "FedSegSlicer")[:64],
            "output": str(output),
            "series": [str(path) for path in dicomFilesOf(volumeNode)] if output.name.endswith(".dcm") else [],
        }

        def end(callback: Callable[[], None]) -> None:
            exchange.clear()
            callback()

        def ask(_none: None) -> None:
            self._session.request(
                "export", order, lambda _result: end(onDone), lambda error: end(lambda: onError(error))
            )

        onThread(
            self._callLater,
            lambda: writeNrrd(composed(layers, snapshot), written),
            ask,
            lambda error: end(lambda: onError(error)),
            unwritable,
        )


def layersOf(
    node: "vtkMRMLSegmentationNode", volumeNode: "vtkMRMLScalarVolumeNode"
) -> tuple[list[_Layer], list[dict[str, Any]]]:
    """Return the segments' voxels, not copied, and what the worker needs to know of the segments.

    Raises:
        UserError: ``export.empty``; ``export.other-geometry``: the user gave the segmentation other voxels.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation, place = node.GetSegmentation(), ijkToRasOf(volumeNode)
    representation = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    layers, segments = [], []
    for number, segmentId in enumerate(segmentation.GetSegmentIDs(), start=1):
        segment = segmentation.GetSegment(segmentId)
        entry = vtk.mutable("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
        color = [round(255 * part) for part in segment.GetColor()]
        segments.append({"name": segment.GetName(), "value": number, "color": color, "terminology": str(entry)})
        image = segment.GetRepresentation(representation)
        if image is None or image.IsEmpty():
            continue
        if abs(_placeOf(image) - place).max() > 1e-3:
            raise UserError(
                "export.other-geometry",
                _("This segmentation has other voxels than the volume."),
                _("Export it from the Segmentations module."),
            )
        extent = image.GetExtent()
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        layers.append(_Layer(voxels, extent[::2], segment.GetLabelValue(), number))
    if not 1 <= len(segments) <= 255:
        raise UserError("export.empty", _("There is no segment to export."), _("Segment the volume first."))
    return layers, segments


def _placeOf(image: "slicer.vtkOrientedImageData") -> "np.ndarray":
    import numpy as np

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def composed(layers: list[_Layer], volume: VolumeSnapshot) -> VolumeSnapshot:
    """Return the layers as one label map numbered from 1 on the volume's voxels; for another thread."""
    import numpy as np

    labels = np.zeros(volume.array.shape[:3], np.uint8)
    for layer in layers:
        # A segment that was painted beyond the image is cut at its edge.
        first = [max(0, begin) for begin in layer.start]
        last = [min(whole, begin + size) for whole, begin, size in zip(
            labels.shape[::-1], layer.start, layer.voxels.shape[::-1], strict=True)]  # fmt: skip
        if any(end <= begin for begin, end in zip(first, last, strict=True)):
            continue
        there = tuple(slice(b, e) for b, e in zip(first[::-1], last[::-1], strict=True))
        here = tuple(slice(b - s, e - s) for b, e, s in zip(first[::-1], last[::-1], layer.start[::-1], strict=True))
        labels[there][layer.voxels[here] == layer.value] = layer.number
    return VolumeSnapshot(labels, volume.ijkToLPS)


def dicomFilesOf(volumeNode: "vtkMRMLScalarVolumeNode") -> list[Path]:
    """Return the DICOM files a volume was loaded from, as far as Slicer's database still knows them."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    files = [database.fileForInstance(uid) for uid in uids] if database is not None else []
    return [Path(file) for file in files if file]
