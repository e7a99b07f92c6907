"""GIN samples as volumes of the scene: passing ones that are looked at, and those that are kept."""

import json
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from .VolumeExchange import VolumeSnapshot

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

PARAMETERS = "FedSegSlicer.Gin.Parameters"
"""Attribute of a kept sample: the safetensors file of its GIN parameters, as base64."""

FACTS = "FedSegSlicer.Gin.Facts"
"""Attribute of a kept sample: JSON of settings, seed, number, preprocessing, and SHA-256 of the voxels."""

SOURCE = "FedSegSlicer.Gin.Source"
"""Node reference from a kept sample to the volume it was made of."""

WINDOW_PERCENTILES = (0.5, 99.5)


class SampleVolumes:
    """The original, as a network gets it, and samples of it, in volume nodes that are neither listed nor saved.

    Index 0 is the original, index n the sample with number n - 1.
    """

    def __init__(self) -> None:
        self.linkedWindow = False
        self._nodes: dict[int, str] = {}
        self._displays: dict[int, str] = {}

    def put(self, index: int, name: str, snapshot: VolumeSnapshot, window: tuple[float, float]) -> None:
        """Show a volume under ``index``, in the node that is there already or a new one.

        Args:
            index: see the class.
            name: what the views call it.
            snapshot: voxels and place.
            window: lowest and highest value shown, unless windows are linked to the original's.
        """
        node, kind = self.node(index), volumeClass(snapshot)
        if node is not None and node.GetClassName() != kind:
            self._remove(index)
            node = None
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            self._nodes[index] = node.GetID()
        setVoxels(node, snapshot)
        self._show(index, node, window)

    def node(self, index: int) -> "vtkMRMLScalarVolumeNode | None":
        """Return the node under ``index``, None if there is none (any more)."""
        return slicer.mrmlScene.GetNodeByID(self._nodes[index]) if index in self._nodes else None

    def nodes(self) -> "list[vtkMRMLScalarVolumeNode]":
        """Return all nodes that are there, the original first."""
        return [node for node in map(self.node, sorted(self._nodes)) if node is not None]

    def window(self, index: int) -> tuple[float, float]:
        """Return lowest and highest value shown of the volume under ``index``."""
        display = self.node(index).GetDisplayNode()
        return display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2

    def setLinkedWindow(self, linked: bool) -> None:
        """Let all samples follow the original's window and level, or each have its own."""
        self.linkedWindow = linked
        for index in self._nodes:
            node = self.node(index)
            if node is not None:
                node.SetAndObserveDisplayNodeID(self._displays[0 if linked else index])

    def clear(self, fromIndex: int = 0) -> None:
        """Remove the nodes from this index on."""
        for index in [known for known in self._nodes if known >= fromIndex]:
            self._remove(index)

    def _remove(self, index: int) -> None:
        for nodeId in (self._nodes.pop(index), self._displays.pop(index, "")):
            node = slicer.mrmlScene.GetNodeByID(nodeId) if nodeId else None
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)

    def _show(self, index: int, node: "vtkMRMLScalarVolumeNode", window: tuple[float, float]) -> None:
        display = slicer.mrmlScene.GetNodeByID(self._displays.get(index, ""))
        if display is None:
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            self._displays[index] = display.GetID()
        setWindow(display, window)
        if self.linkedWindow:
            node.SetAndObserveDisplayNodeID(self._displays.get(0, display.GetID()))


def volumeClass(snapshot: VolumeSnapshot) -> str:
    """Return the class of volume node for gray or color voxels."""
    return "vtkMRMLVectorVolumeNode" if snapshot.array.ndim == 4 else "vtkMRMLScalarVolumeNode"


def setVoxels(node: "vtkMRMLScalarVolumeNode", snapshot: VolumeSnapshot) -> None:
    """Copy voxels and place into a volume node."""
    matrix = vtk.vtkMatrix4x4()
    for row, sign in enumerate((-1, -1, 1)):
        for column in range(4):
            matrix.SetElement(row, column, sign * snapshot.ijkToLPS[row][column])
    modified = node.StartModify()
    slicer.util.updateVolumeFromArray(node, snapshot.array)
    node.SetIJKToRASMatrix(matrix)
    node.EndModify(modified)


def setWindow(display: "slicer.vtkMRMLScalarVolumeDisplayNode", window: tuple[float, float]) -> None:
    """Show values from ``window[0]`` (black) to ``window[1]`` (white)."""
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(max(window[1] - window[0], 1e-6), (window[0] + window[1]) / 2)


def telling(slab: "Any", reach: int) -> tuple[float, float]:
    """Return the range of values worth showing of some slices (k, j, i[, c]), without the rim that padding spoils."""
    import numpy as np

    inside = slab[:, reach : slab.shape[1] - reach, reach : slab.shape[2] - reach]
    low, high = np.percentile(inside if inside.size else slab, WINDOW_PERCENTILES)
    return float(low), float(high)


def keepAsVolume(
    node: "vtkMRMLScalarVolumeNode", source: "vtkMRMLScalarVolumeNode", parameters: str, facts: dict[str, Any]
) -> "vtkMRMLScalarVolumeNode":
    """Return a copy of a sample that is listed, saved with the scene, and knows how it was made.

    Args:
        node: the sample.
        source: what it was made of.
        parameters: its parameter file as base64.
        facts: anything that JSON can hold.
    """
    scene = slicer.mrmlScene
    name = _("{volume} GIN seed {seed} sample {number}").format(
        volume=source.GetName(), seed=facts["seed"], number=facts["number"] + 1
    )
    kept = scene.AddNewNodeByClass(node.GetClassName(), scene.GenerateUniqueName(name))
    image = vtk.vtkImageData()
    image.DeepCopy(node.GetImageData())
    kept.SetAndObserveImageData(image)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    kept.SetIJKToRASMatrix(matrix)
    kept.CreateDefaultDisplayNodes()
    shown = node.GetDisplayNode()
    setWindow(
        kept.GetDisplayNode(), (shown.GetLevel() - shown.GetWindow() / 2, shown.GetLevel() + shown.GetWindow() / 2)
    )
    kept.SetAttribute(PARAMETERS, parameters)
    kept.SetAttribute(FACTS, json.dumps(facts, sort_keys=True))
    kept.SetNodeReferenceID(SOURCE, source.GetID())
    return kept


def factsOf(node: "vtkMRMLScalarVolumeNode | None") -> dict[str, Any] | None:
    """Return how a kept sample was made, None for any other volume."""
    text = node.GetAttribute(FACTS) if node is not None else None
    if not text or not node.GetAttribute(PARAMETERS):
        return None
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
