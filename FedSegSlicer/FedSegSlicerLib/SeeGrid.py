"""The See tab's pictures: the original and its samples as a list of small ones, and the slice they show."""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from .Background import Steps
from .Errors import UserError
from .QtTimer import callLater
from .SeeLogic import SeeLogic
from .SeePictures import PICTURE_WIDTH, PictureFrame, writePng
from .SeeTypes import Look
from .SeeWords import outlineWords

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLSegmentationNode

PICTURE_SIDE = 112
"""Width of a picture in the list."""


class SeeGrid:
    """Draws the pictures, one at a time with events in between.

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        logic: knows what there is to be seen.
    """

    def __init__(self, ui: object, logic: SeeLogic) -> None:
        self.ui = ui
        self.logic = logic
        self.isFilling = False
        self._shownLook: Look | None = None
        self._drawing: Steps | None = None

    def fillSlices(self) -> None:
        """Give the slider the slices that are there; it stays where it is, or goes to the one that was asked for."""
        scene = self.logic.scene
        if scene is None:
            return
        slider = self.ui.seeSliceSlider
        last = scene.first + scene.original.array.shape[0] - 1
        isNew = scene.look is not self._shownLook
        self._shownLook = scene.look
        self.isFilling = True
        slider.setRange(scene.first, last)
        slider.value = scene.shown if isNew else min(max(slider.value, scene.first), last)
        slider.enabled = last > scene.first
        self.isFilling = False

    def draw(self, segmentation: "vtkMRMLSegmentationNode | None") -> None:
        """Draw all pictures anew, with the outlines of a segmentation's visible segments, or say why there are none."""
        self.stop()
        self.ui.seeOutlineLabel.text = outlineWords(segmentation)
        self.ui.seeOutlineLabel.setVisible(bool(self.ui.seeOutlineLabel.text))
        scene = self.logic.scene
        if scene is None:
            self.ui.seePictureList.clear()
            self._shownLook = None
            return
        self.ui.seeSliceLabel.text = _("{number} of {count}").format(
            number=self.ui.seeSliceSlider.value + 1, count=scene.slices
        )
        self._drawing = Steps(callLater, self._drawAll(segmentation), lambda: None, self.logic.failed.emit)

    def stop(self) -> None:
        """Draw no further picture."""
        if self._drawing is not None:
            self._drawing.stop()
            self._drawing = None

    def _drawAll(self, segmentation: "vtkMRMLSegmentationNode | None") -> Generator[None, None, None]:
        scene = self.logic.scene
        k = self.ui.seeSliceSlider.value
        frame = PictureFrame(scene.original, k - scene.first)
        outlines = frame.outlines(segmentation)
        self._makeItems(frame)
        yield
        for index in range(scene.look.samples + 1):
            plane = self._planeOf(index, k)
            if plane is not None:
                picture = frame.picture(plane, self.logic.volumes.window(index), outlines)
                item = self.ui.seePictureList.item(index)
                item.setIcon(_iconOf(pixmapOf(picture, self.logic.folder())))
                item.setText(self._titleOf(index))
            yield
        # Only now has the list its final width, if it was hidden before.
        self._fitHeight(frame)

    def _planeOf(self, index: int, k: int) -> "object | None":
        """Return slice k of what is under ``index``, None where it is not there (yet)."""
        node, sample = self.logic.volumes.node(index), self.logic.samples.get(index - 1)
        if node is None or (index > 0 and sample is None):
            return None
        own = k - (self.logic.scene.first if sample is None else sample.first)
        voxels = slicer.util.arrayFromVolume(node)
        return voxels[own] if 0 <= own < voxels.shape[0] else None

    def _titleOf(self, index: int) -> str:
        if index == 0:
            return _("Original")
        return _("{number}: strength {share:.2f}").format(number=index, share=self.logic.samples[index - 1].alpha)

    def _makeItems(self, frame: PictureFrame) -> None:
        """Have one item a picture, large enough for pictures of this frame; the list is as high as its rows."""
        pictures, count = self.ui.seePictureList, self.logic.scene.look.samples + 1
        self.isFilling = True
        while pictures.count < count:
            pictures.addItem("…")
        while pictures.count > count:
            pictures.takeItem(pictures.count - 1)
        if pictures.currentRow < 1:
            pictures.setCurrentRow(1)
        self.isFilling = False
        self._fitHeight(frame)

    def _fitHeight(self, frame: PictureFrame) -> None:
        pictures = self.ui.seePictureList
        height = round(PICTURE_SIDE * frame.shape[0] / PICTURE_WIDTH)
        pictures.setIconSize(qt.QSize(PICTURE_SIDE, height))
        cell = qt.QSize(PICTURE_SIDE + 8, height + pictures.fontMetrics().height() + 12)
        pictures.setGridSize(cell)
        columns = max(1, (pictures.width - 2 * pictures.frameWidth - 1) // cell.width())
        pictures.setFixedHeight(-(-pictures.count // columns) * cell.height() + 2 * pictures.frameWidth + 4)


def pixmapOf(pixels: "np.ndarray", folder: Path) -> "qt.QPixmap":
    """Return uint8 (rows, columns, RGB or RGBA) as a picture of Qt's; a file in ``folder`` is there for a moment.

    Raises:
        UserError: ``disk.full``.
    """
    path = folder / "picture.png"
    try:
        writePng(pixels, path)
        return qt.QPixmap(str(path))
    except OSError as error:
        raise UserError(
            "disk.full",
            _("The pictures could not be written to the temporary folder."),
            _("Free some space on that disk, and try again."),
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _iconOf(pixmap: "qt.QPixmap") -> "qt.QIcon":
    """Return a picture as an icon that is not tinted when it is selected: its gray values are what counts."""
    icon = qt.QIcon(pixmap)
    icon.addPixmap(pixmap, qt.QIcon.Selected)
    return icon
