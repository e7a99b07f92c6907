"""From the worker's files to the shown result without holding up the GUI thread, however large the image is."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from .Background import Steps, onThread
from .Errors import UserError
from .ResultPieces import Pieces, build, readPieces, unreadableResult
from .ResultPlace import ResultPlace
from .ResultRecord import recordOf
from .SegmentationResult import RECORD, Former
from .VolumeExchange import goneError
from .WorkerProcess import CallLater

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLScalarVolumeNode


class ResultImport:
    """Brings one result into the scene: read on a thread, built in short steps, placed at once, shown in short steps.

    Until it is placed the scene is not touched, and ``stop`` leaves no trace.

    Args:
        callLater: see CallLater.
        volumeNode: what was segmented.
        place: where the result goes.
        folder: the worker's files.
        result: the worker's answer.
        onDone: gets what the result replaced, once it is shown.
        onError: gets ``volume.gone``, ``volume.changed`` or ``result.unreadable``; a former result is untouched.
    """

    def __init__(
        self,
        callLater: CallLater,
        volumeNode: "vtkMRMLScalarVolumeNode",
        place: ResultPlace,
        folder: Path,
        result: dict[str, Any],
        onDone: Callable[[Former], None],
        onError: Callable[[UserError], None],
    ) -> None:
        self._callLater = callLater
        self._volumeNode = volumeNode
        self._target = place
        self._result = result
        self._onDone = onDone
        self._onError = onError
        self._steps: Steps | None = None
        self._stopped = False
        self.isPlaced = False
        if self._isGone():
            return
        size, self._ijkToRas = volumeNode.GetImageData().GetDimensions(), ijkToRasOf(volumeNode)
        onThread(
            callLater,
            lambda: readPieces(folder, result["pieces"], self._ijkToRas, size),
            self._build,
            self._fail,
            unreadableResult,
        )

    def stop(self) -> None:
        """Go no further and call nobody back."""
        self._stopped = True
        if self._steps is not None:
            self._steps.stop()

    def _isGone(self) -> bool:
        if not self._target.isPresent():
            self._fail(goneError())
            return True
        return False

    def _fail(self, error: UserError) -> None:
        if not self._stopped:
            self.stop()
            self._callLater(0, lambda: self._onError(error))

    def _build(self, pieces: Pieces) -> None:
        if self._stopped:
            return
        segmentation = slicer.vtkSegmentation()
        steps = build(pieces, self._ijkToRas, segmentation)
        self._take(steps, lambda: self._place(pieces, segmentation))

    def _place(self, pieces: Pieces, segmentation: "slicer.vtkSegmentation") -> None:
        if self._stopped or self._isGone():
            return
        moved = self._volumeNode.GetParentTransformNode() is not None
        if moved or (self._ijkToRas != ijkToRasOf(self._volumeNode)).any():
            self._fail(
                UserError(
                    "volume.changed",
                    _("The volume was moved or replaced while it was being segmented."),
                    _("Segment it again."),
                )
            )
            return
        self.isPlaced = True
        steps = self._drawnOnce(pieces, segmentation)
        former = next(steps)
        self._take(steps, lambda: self._onDone(former))

    def _drawnOnce(
        self, pieces: Pieces, segmentation: "slicer.vtkSegmentation"
    ) -> "Generator[Former | None, None, None]":
        """Put the result into the scene, yield what it replaced, and show it; views are drawn when all is done."""
        with slicer.util.RenderBlocker():
            former = self._target.put(segmentation, self._result["release"])
            former.node.SetAttribute(RECORD, recordOf(self._result))
            yield former
            steps = self._target.show(former, pieces)
            while self._target.isPresent() and next(steps, self) is not self:
                yield

    def _take(self, steps: Any, onDone: Callable[[], None]) -> None:
        self._steps = Steps(self._callLater, steps, onDone, self._fail)


def ijkToRasOf(volumeNode: "vtkMRMLScalarVolumeNode") -> "np.ndarray":
    """Return the 4x4 matrix from voxel index to RAS mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
