"""The original and its samples in linked slice views of the main window, where there is one."""

from typing import TYPE_CHECKING, Any

import slicer

from .Outlines import fillAgain, outlineAll

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

FIRST_LAYOUT = 27450
"""Number of the layout with one view; the one with n views has n - 1 more. Slicer's own numbers are below 1000."""

VIEW_NAME = "FedSegGin{number}"
VIEW_GROUP = 2745
"""Views of one group move together; Slicer's own views are in group 0."""


def pointInView(volumeNode: "vtkMRMLScalarVolumeNode") -> tuple[float, float, float] | None:
    """Return the point (RAS mm) an axial slice view of Slicer's shows this volume at, None if none shows it."""
    scene = volumeNode.GetScene()
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        composite = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
        if composite.GetBackgroundVolumeID() != volumeNode.GetID():
            continue
        for other in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
            view = scene.GetNthNodeByClass(other, "vtkMRMLSliceNode")
            if view.GetLayoutName() == composite.GetLayoutName() and view.GetOrientation() == "Axial":
                place = view.GetSliceToRAS()
                return place.GetElement(0, 3), place.GetElement(1, 3), place.GetElement(2, 3)
    return None


def layoutXml(count: int) -> str:
    """Return Slicer's description of a layout with ``count`` axial slice views in rows, a little wider than tall."""
    columns = columnsFor(count)
    rows = [range(start, min(start + columns, count)) for start in range(0, count, columns)]
    items = "".join(
        f'<item><layout type="horizontal">{"".join(_viewXml(number) for number in row)}</layout></item>' for row in rows
    )
    return f'<layout type="vertical">{items}</layout>'


def columnsFor(count: int) -> int:
    """Return in how many columns ``count`` pictures leave the fewest places empty."""
    if count <= 3:
        return max(1, count)
    return min(range(2, 5), key=lambda columns: (-count % columns, abs(columns**2 - 1.4 * count)))


def _viewXml(number: int) -> str:
    label = "0" if number == 0 else str(number)
    color = "#808080" if number == 0 else "#2E86DE"
    return (
        f'<item><view class="vtkMRMLSliceNode" singletontag="{VIEW_NAME.format(number=number)}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{color}</property>'
        f'<property name="viewgroup" action="default">{VIEW_GROUP}</property>'
        "</view></item>"
    )


class SampleViews:
    """Shows volumes side by side, with outlines only of segmentations, and brings the former layout back.

    A scene that is saved meanwhile knows nothing of this layout and its views: Slicer would show an empty window where
    the module has not made them yet. Its segments are outlines, and are filled again where it is loaded (``Outlines``).

    Args:
        layoutManager: ``slicer.app.layoutManager()``; None where there is no main window, and then nothing is shown.
    """

    def __init__(self, layoutManager: "Any | None") -> None:
        self._manager = layoutManager
        self._former: int | None = None
        self._count = 0

    def isPossible(self) -> bool:
        """Return whether there is a main window to show anything in."""
        return self._manager is not None

    def isShown(self) -> bool:
        """Return whether the samples' layout is the current one."""
        return self._former is not None and self._manager.layout == FIRST_LAYOUT + self._count - 1

    def isLeft(self) -> bool:
        """Return whether the user has chosen another layout since."""
        return self._former is not None and not self.isShown()

    def show(self, nodes: "list[vtkMRMLScalarVolumeNode]") -> bool:
        """Show these volumes, one a view; views keep where they are and how far they are zoomed in.

        Returns whether the layout is another one than before. Then its views must be fitted and linked (``settle``),
        but not before the event loop has run: only then a new view has its size, and tells that it stands at 0 mm,
        where linked ones would follow it.
        """
        if self._manager is None or not nodes:
            return False
        number = FIRST_LAYOUT + len(nodes) - 1
        isNew = self._manager.layout != number
        if isNew:
            if not FIRST_LAYOUT <= self._manager.layout < FIRST_LAYOUT + 100:
                self._former = self._manager.layout
            layoutNode = self._manager.layoutLogic().GetLayoutNode()
            if not layoutNode.IsLayoutDescription(number):
                layoutNode.AddLayoutDescription(number, layoutXml(len(nodes)))
            self._count = len(nodes)
            self._manager.setLayout(number)
            layoutNode.SetSaveWithScene(False)
        outlineAll()
        for index, node in enumerate(nodes):
            logic = self._sliceLogic(index)
            composite = logic.GetSliceCompositeNode()
            for passing in (composite, logic.GetSliceNode(), logic.GetSliceDisplayNode()):
                if passing is not None:
                    passing.SetSaveWithScene(False)
            if isNew:
                _link(composite, False)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            composite.SetBackgroundVolumeID(node.GetID())
        return isNew

    def settle(self) -> None:
        """Fit the views to their volumes, and let them move together."""
        if not self.isShown():
            return
        logics = [self._sliceLogic(index) for index in range(self._count)]
        for logic in logics:
            logic.FitSliceToAll()
        for logic in logics:
            _link(logic.GetSliceCompositeNode(), True)

    def jumpTo(self, ras: tuple[float, float, float]) -> None:
        """Move the views to the slice through a point (RAS mm)."""
        if self.isShown():
            for index in range(self._count):
                self._sliceLogic(index).GetSliceNode().JumpSliceByOffsetting(*ras)

    def hide(self) -> None:
        """Bring back the layout that was there before."""
        if self.isShown():
            self._manager.setLayout(self._former)
        if self._former is not None:
            self._manager.layoutLogic().GetLayoutNode().SetSaveWithScene(True)
        self._former = None
        fillAgain()

    def _sliceLogic(self, index: int) -> slicer.vtkMRMLSliceLogic:
        return self._manager.sliceWidget(VIEW_NAME.format(number=index)).sliceLogic()


def _link(composite: "slicer.vtkMRMLSliceCompositeNode", linked: bool) -> None:
    composite.SetLinkedControl(linked)
    composite.SetHotLinkedControl(linked)
