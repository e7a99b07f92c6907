"""Segments as outlines for a while, so that what lies under them can be seen; filled again afterwards.

Slicer tells nobody that a scene is about to be saved. Whoever is outlined is therefore marked: a scene that was saved
meanwhile says which segmentations are to be filled, and gets them filled where it is loaded.
"""

from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSegmentationDisplayNode

OUTLINED = "FedSegSlicer.Outlined"
"""Attribute of a display node that is filled but for now."""

_now: set[str] = set()
"""IDs of the display nodes that are outlined now."""


def outlineAll() -> None:
    """Fill no segment for now."""
    for display in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode"):
        if display.GetVisibility2DFill():
            display.SetAttribute(OUTLINED, "yes")
            display.SetVisibility2DFill(False)
            _now.add(display.GetID())


def fillAgain() -> None:
    """Fill what ``outlineAll`` has outlined."""
    for display in map(slicer.mrmlScene.GetNodeByID, sorted(_now)):
        if display is not None:
            _fill(display)
    _now.clear()


def fillSaved() -> None:
    """Fill what was outlined when the scene that was just loaded was saved."""
    for display in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode"):
        if display.GetAttribute(OUTLINED) and display.GetID() not in _now:
            _fill(display)


def followScene(scene: "vtkMRMLScene") -> int:
    """Fill saved outlines whenever something is loaded into the scene; return the observer's tag."""
    return scene.AddObserver(scene.EndImportEvent, lambda _scene, _event: fillSaved())


def _fill(display: "vtkMRMLSegmentationDisplayNode") -> None:
    display.RemoveAttribute(OUTLINED)
    display.SetVisibility2DFill(True)
