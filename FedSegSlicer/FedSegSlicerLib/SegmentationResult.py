"""The worker's segmentation as one node in the scene, in its place and shown."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .Errors import UserError

ROLE = "FedSegSlicer.SegmentedVolume"
"""Node reference from a result to the volume it was made of."""


@dataclass(frozen=True)
class ResultRow:
    """One structure of a result.

    Attributes:
        name: what people read.
        color: red, green, blue, 0 to 255.
        volumeMl: volume in milliliters.
        segmentId: its segment, ``""`` if the structure was not found.
    """

    name: str
    color: tuple[int, int, int]
    volumeMl: float
    segmentId: str


def findResult(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> "slicer.vtkMRMLSegmentationNode | None":
    """Return the segmentation an earlier run made of this volume."""
    scene = volumeNode.GetScene()
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        if node.GetNodeReferenceID(ROLE) == volumeNode.GetID():
            return node
    return None


def loadResult(
    path: Path, sha256: str, volumeNode: "slicer.vtkMRMLScalarVolumeNode", release: str
) -> "slicer.vtkMRMLSegmentationNode":
    """Read the worker's ``.seg.nrrd`` into the volume's result node, made on the first run, replaced on later ones.

    The node gets the volume's reference geometry, its place beside the volume in the subject hierarchy, and is left
    without closed surface until ``showResult``.

    Args:
        path: the file.
        sha256: what the worker says the file's hash is.
        volumeNode: what was segmented.
        release: what segmented it.

    Raises:
        UserError: ``result.unreadable``; the former result is untouched.
    """
    _checkFile(path, sha256)
    scene = volumeNode.GetScene()
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    try:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(path))
        if not storage.ReadData(loaded):
            raise _unreadable()
        node = findResult(volumeNode) or scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.GetSegmentation().DeepCopy(loaded.GetSegmentation())
    finally:
        scene.RemoveNode(loaded)
    if not node.GetNodeReferenceID(ROLE):
        node.SetName(scene.GenerateUniqueName(_("{volume} segmentation").format(volume=volumeNode.GetName())))
        node.SetNodeReferenceID(ROLE, volumeNode.GetID())
    node.SetAttribute("FedSegSlicer.Release", release)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.CreateDefaultDisplayNodes()
    _placeBeside(node, volumeNode)
    return node


def _checkFile(path: Path, sha256: str) -> None:
    # Slicer's storage node ends the whole application on a file that is cut short.
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _unreadable() from error
    if found != sha256:
        raise _unreadable()


def _unreadable() -> UserError:
    return UserError(
        "result.unreadable",
        _("The worker's result could not be read."),
        _("Try again; if it happens again, look whether the temporary folder's disk is full."),
    )


def _placeBeside(node: "slicer.vtkMRMLSegmentationNode", volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    if volumeItem == hierarchy.GetInvalidItemID():
        return
    parent = hierarchy.GetItemParent(volumeItem)
    item = hierarchy.GetItemByDataNode(node)
    if item == hierarchy.GetInvalidItemID():
        hierarchy.CreateItem(parent, node)
    else:
        hierarchy.SetItemParent(item, parent)


def showResult(node: "slicer.vtkMRMLSegmentationNode", volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Show the result over its volume in the slice views, as surfaces in 3-D, and bring both into view."""
    slicer.util.setSliceViewerLayers(background=volumeNode)
    node.CreateClosedSurfaceRepresentation()
    display = node.GetDisplayNode()
    display.SetVisibility(True)
    display.SetVisibility3D(True)
    center = _centerOfLargest(node)
    if center is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(volumeNode.GetScene(), *center)
    layoutManager = slicer.app.layoutManager()
    for index in range(layoutManager.threeDViewCount if layoutManager is not None else 0):
        layoutManager.threeDWidget(index).threeDView().resetFocalPoint()


def _centerOfLargest(node: "slicer.vtkMRMLSegmentationNode") -> tuple[float, float, float] | None:
    """Return the RAS center (mm) of the segment with most voxels in its bounding box, None if all are empty."""
    segmentation = node.GetSegmentation()
    sizes = {}
    for segmentId in segmentation.GetSegmentIDs():
        bounds = [0.0] * 6
        segmentation.GetSegment(segmentId).GetBounds(bounds)
        if bounds[0] < bounds[1]:
            sizes[segmentId] = (bounds[1] - bounds[0]) * (bounds[3] - bounds[2]) * (bounds[5] - bounds[4])
    if not sizes:
        return None
    center = node.GetSegmentCenterRAS(max(sizes, key=sizes.get))
    return (center[0], center[1], center[2]) if center is not None else None


def resultRows(node: "slicer.vtkMRMLSegmentationNode", segments: list[dict]) -> list[ResultRow]:
    """Return the worker's list of segments with the segments' names and colors in the scene.

    Args:
        node: the result.
        segments: the worker's {name, value, code, volume_ml}.
    """
    segmentation = node.GetSegmentation()
    rows = []
    for entry in segments:
        segmentId = segmentation.GetSegmentIdBySegmentName(entry["name"])
        segment = segmentation.GetSegment(segmentId) if segmentId else None
        color = tuple(round(255 * part) for part in segment.GetColor()) if segment is not None else (128, 128, 128)
        rows.append(ResultRow(entry["name"], color, float(entry["volume_ml"]), segmentId))
    return rows
