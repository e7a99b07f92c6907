"""GIN samples as volumes of the scene: passing ones that are looked at, and those that are kept."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .Background import onThread
from .Errors import UserError
from .VolumeExchange import VolumeSnapshot
from .WorkerProcess import CallLater

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

PARAMETERS = "FedSegSlicer.Gin.Parameters"
"""Attribute of a kept sample: the safetensors file of its GIN parameters, as base64."""

FACTS = "FedSegSlicer.Gin.Facts"
"""Attribute of a kept sample: JSON of settings, seed, number, preprocessing, and SHA-256 of the voxels."""

SOURCE = "FedSegSlicer.Gin.Source"
"""Node reference from a sample that was kept or made again to the volume it was made of."""

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
        self._show(index, node, window)  # before it has voxels, of which VTK would find the range
        setVoxels(node, snapshot)

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
    """Give voxels, which are not copied, and place to a volume node."""
    image = vtk.vtkImageData()
    image.SetDimensions(snapshot.array.shape[2::-1])
    image.GetPointData().SetScalars(snapshot.scalars)
    matrix = vtk.vtkMatrix4x4()
    for row, sign in enumerate((-1, -1, 1)):
        for column in range(4):
            matrix.SetElement(row, column, sign * snapshot.ijkToLPS[row][column])
    modified = node.StartModify()
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(image)
    node.EndModify(modified)


def setWindow(display: "slicer.vtkMRMLScalarVolumeDisplayNode", window: tuple[float, float]) -> None:
    """Show values from ``window[0]`` (black) to ``window[1]`` (white)."""
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(max(window[1] - window[0], 1e-6), (window[0] + window[1]) / 2)


def windowAround(snapshot: VolumeSnapshot, k: int, reach: int) -> tuple[float, float]:
    """Return what is worth showing of the slices around slice k; see ``telling``."""
    return telling(snapshot.array[max(0, k - 1) : k + 2], reach)


def telling(slab: "Any", reach: int) -> tuple[float, float]:
    """Return the range of values worth showing of some slices (k, j, i[, c]), without the rim that padding spoils."""
    import numpy as np

    inside = slab[:, reach : slab.shape[1] - reach, reach : slab.shape[2] - reach]
    low, high = np.percentile(inside if inside.size else slab, WINDOW_PERCENTILES)
    return float(low), float(high)


def keepAsVolume(
    node: "vtkMRMLScalarVolumeNode",
    source: "vtkMRMLScalarVolumeNode",
    parameters: str,
    facts: dict[str, Any],
    callLater: CallLater,
    onError: Callable[[UserError], None],
) -> "vtkMRMLScalarVolumeNode":
    """Return a copy of a sample that is listed, saved with the scene, and knows how it was made.

    Its voxels are the sample's at first; a copy of its own, made on a thread, takes their place a moment later.

    Args:
        node: the sample.
        source: what it was made of.
        parameters: its parameter file as base64.
        facts: anything that JSON can hold.
        callLater: see CallLater.
        onError: called where there is too little memory for the copy.
    """
    scene = slicer.mrmlScene
    name = _("{volume} GIN seed {seed} sample {number}").format(
        volume=source.GetName(), seed=facts["seed"], number=facts["number"] + 1
    )
    kept = scene.AddNewNodeByClass(node.GetClassName(), scene.GenerateUniqueName(name))
    showLike(kept, node)
    image = vtk.vtkImageData()
    image.ShallowCopy(node.GetImageData())
    kept.SetAndObserveImageData(image)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    kept.SetIJKToRASMatrix(matrix)
    _copyLater(image, callLater, onError)
    kept.SetAttribute(PARAMETERS, parameters)
    kept.SetAttribute(FACTS, json.dumps(facts, sort_keys=True))
    kept.SetNodeReferenceID(SOURCE, source.GetID())
    return kept


def showLike(node: "vtkMRMLScalarVolumeNode", other: "vtkMRMLScalarVolumeNode") -> None:
    """Give a volume that has no voxels yet a display with another one's window."""
    node.CreateDefaultDisplayNodes()
    shown = other.GetDisplayNode()
    if shown is not None:
        window = shown.GetLevel() - shown.GetWindow() / 2, shown.GetLevel() + shown.GetWindow() / 2
        setWindow(node.GetDisplayNode(), window)


def _copyLater(image: vtk.vtkImageData, callLater: CallLater, onError: Callable[[UserError], None]) -> None:
    """Give an image voxels of its own instead of those it shares."""
    shared = image.GetPointData().GetScalars()

    def copy() -> vtk.vtkDataArray:
        own = shared.NewInstance()
        own.SetNumberOfComponents(shared.GetNumberOfComponents())
        own.SetNumberOfTuples(shared.GetNumberOfTuples())
        vtk_to_numpy(own)[:] = vtk_to_numpy(shared)  # a copy by VTK would hold Python's lock, and the GUI thread
        return own

    def use(own: vtk.vtkDataArray) -> None:
        if image.GetPointData().GetScalars() is shared:
            image.GetPointData().SetScalars(own)

    onThread(callLater, copy, use, onError, _notCopied)


def _notCopied(_error: Exception) -> UserError:
    return UserError(
        "sample.not-copied",
        _("There is too little memory for a kept sample beside the one that is shown."),
        _("Close volumes that you no longer need; a change of the kept sample shows in the other one, too."),
    )


def isSample(node: "vtkMRMLScalarVolumeNode") -> bool:
    """Return whether a volume is a kept sample, or one that was made again, and no patient's image."""
    return bool(node.GetAttribute(FACTS) or node.GetNodeReferenceID(SOURCE))


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
