"""The part of Slicer's main window that shows slice views: a stub of the window, real layouts and slice logics."""

import pytest
import slicer
import vtk
from FedSegSlicerLib.QtTimer import callLater


@pytest.fixture
def main_window(monkeypatch):
    """Slicer's layouts and slice views, without the window around them."""
    manager = LayoutManager()
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: manager)
    yield manager
    manager.close()


def _view_nodes():
    kinds = ("vtkMRMLLayoutNode", "vtkMRMLAbstractViewNode", "vtkMRMLSliceCompositeNode")
    return [node for kind in kinds for node in slicer.util.getNodesByClass(kind)]


class _SliceWidget:
    def __init__(self, logic):
        self._logic = logic

    def sliceLogic(self):
        return self._logic


class LayoutManager:
    """``slicer.app.layoutManager()``: reads layouts by Slicer's own logic, and has a slice logic for every view."""

    threeDViewCount = 0

    def __init__(self):
        self._before = set(_view_nodes())
        self._layouts = slicer.vtkMRMLLayoutLogic()
        self._layouts.SetMRMLScene(slicer.mrmlScene)
        self._widgets = {}

    @property
    def layout(self):
        return self._layouts.GetLayoutNode().GetViewArrangement()

    def setLayout(self, number):
        self._layouts.GetLayoutNode().SetViewArrangement(number)

    def layoutLogic(self):
        return self._layouts

    def sliceWidget(self, name):
        if name not in self._widgets:
            node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
            assert node is not None, f"the layout has no view {name}"
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLScene(slicer.mrmlScene)
            logic.SetSliceNode(node)
            self._widgets[name] = _SliceWidget(logic)
            callLater(0, lambda: self._tells_where_it_begins(logic))
        return self._widgets[name]

    def _tells_where_it_begins(self, logic):
        """A new view's slider says 0 mm as soon as the event loop runs, and linked views follow it."""
        if logic.GetMRMLScene() is not None:
            for moved in self._logics() if logic.GetSliceCompositeNode().GetLinkedControl() else [logic]:
                moved.SetSliceOffset(0.0)

    def mrmlSliceLogics(self):
        found = vtk.vtkCollection()
        for logic in self._logics():
            found.AddItem(logic)
        return found

    def _logics(self):
        """Return the slice logics of the views that are shown, in the layout's order."""
        views = self._layouts.GetViewNodes()
        nodes = [views.GetItemAsObject(number) for number in range(views.GetNumberOfItems())]
        return [self.sliceWidget(node.GetLayoutName()).sliceLogic() for node in nodes if node.IsA("vtkMRMLSliceNode")]

    def shown(self):
        """Return the volumes in the views that are shown."""
        return [logic.GetBackgroundLayer().GetVolumeNode() for logic in self._logics()]

    def linked(self):
        composites = [logic.GetSliceCompositeNode() for logic in self._logics()]
        groups = {logic.GetSliceNode().GetViewGroup() for logic in self._logics()}
        return len(groups) == 1 and all(node.GetLinkedControl() for node in composites)

    def slicePlaces(self):
        """Return the views' places along the body's axis, mm."""
        return [round(logic.GetSliceNode().GetSliceToRAS().GetElement(2, 3), 3) for logic in self._logics()]

    def centers(self):
        """Return the middle (RAS mm) of every view that is shown."""
        places = [logic.GetSliceNode().GetSliceToRAS() for logic in self._logics()]
        return [[place.GetElement(row, 3) for row in range(3)] for place in places]

    def heights(self):
        """Return how many mm every view that is shown spans from top to bottom."""
        return [logic.GetSliceNode().GetFieldOfView()[1] for logic in self._logics()]

    def close(self):
        """Leave the scene as it was: its layout would go on hiding the views of other tests."""
        for widget in self._widgets.values():
            widget.sliceLogic().SetMRMLScene(None)
        self._layouts.SetMRMLScene(None)
        for node in set(_view_nodes()) - self._before:
            slicer.mrmlScene.RemoveNode(node)
