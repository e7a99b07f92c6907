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
from .Segments import LabelMap, colorOf, imageOf, readLabelMap
from .VolumeExchange import VolumeExchange, VolumeSnapshot, takeSnapshot, unwritable, writeNrrd
from .WorkerProcess import CallLater
from .WorkerSession import WorkerSession

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".dcm")


@dataclass(frozen=True)
class _Layer:
    """A segment's voxels where they are.

    Attributes:
        labelMap: shared with other segments.
        value: what the segment's voxels hold.
        number: what they get in the file.
    """

    labelMap: LabelMap
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
        """Write the segmentation on the volume's own voxels; where segments overlap, the smallest one is written.

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
            "series": [str(path) for path in dicomFilesOf(volumeNode)] if output.name.lower().endswith(".dcm") else [],
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
        UserError: ``export.empty``; ``export.transformed``; ``export.no-label-map``: it holds contours or surfaces;
            ``export.other-geometry``: the user gave the segmentation other voxels.
    """
    if node.GetParentTransformNode() is not None:
        raise UserError(
            "export.transformed",
            _("A transform is applied to this segmentation, and would be missing from what is written."),
            _("Harden the transform (Transforms module), or remove it, and try again."),
        )
    segmentation, place = node.GetSegmentation(), ijkToRasOf(volumeNode)
    layers, segments = [], []
    for number, segmentId in enumerate(segmentation.GetSegmentIDs(), start=1):
        segment = segmentation.GetSegment(segmentId)
        entry = vtk.mutable("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
        color = list(colorOf(segment))
        segments.append({"name": segment.GetName(), "value": number, "color": color, "terminology": str(entry)})
        image = imageOf(segmentation, segmentId)
        if image is None:
            raise _noLabelMap()
        if image.IsEmpty():
            continue
        labelMap = readLabelMap(image).onGrid(place)
        if labelMap is None:
            raise UserError(
                "export.other-geometry",
                _("This segmentation has other voxels than the volume."),
                _("Make it so in the Segment Editor (Specify geometry: this volume), or export it from Segmentations."),
            )
        layers.append(_Layer(labelMap, segment.GetLabelValue(), number))
    if not 1 <= len(segments) <= 255:
        raise UserError("export.empty", _("There is no segment to export."), _("Segment the volume first."))
    return layers, segments


def _noLabelMap() -> UserError:
    return UserError(
        "export.no-label-map",
        _("This segmentation has contours or surfaces only, as from a radiotherapy plan, and no voxels."),
        _("Create its representation 'Binary labelmap' in the Segmentations module, and try again."),
    )


def composed(layers: list[_Layer], volume: VolumeSnapshot) -> VolumeSnapshot:
    """Return the layers as one label map numbered from 1 on the volume's voxels; for another thread.

    The larger a segment, the earlier it is written: neither a lesion in its organ nor an organ in the body is covered.
    """
    import numpy as np

    labels, found = np.zeros(volume.array.shape[:3], np.uint8), []
    for layer in layers:
        here, there = layer.labelMap.overlap(labels.shape)
        found.append((np.count_nonzero(layer.labelMap.voxels[here] == layer.value), layer, here, there))
    for _voxels, layer, here, there in sorted(found, key=lambda each: each[0], reverse=True):
        labels[there][layer.labelMap.voxels[here] == layer.value] = layer.number
    return VolumeSnapshot(labels, volume.ijkToLPS)


def dicomFilesOf(volumeNode: "vtkMRMLScalarVolumeNode") -> list[Path]:
    """Return the DICOM files a volume was loaded from, as far as Slicer's database still knows them."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    files = [database.fileForInstance(uid) for uid in uids] if database is not None else []
    return [Path(file) for file in files if file]
