"""The worker's segmentation as one node in the scene, in its place and shown; and what was there before, for Undo."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from .ResultPieces import GIVEN, Pieces, givenTag
from .Segments import colorOf

ROLE = "FedSegSlicer.SegmentedVolume"
"""Node reference from a result to the volume it was made of."""
RELEASE = "FedSegSlicer.Release"
"""Attribute of a result: what segmented it."""
RECORD = "FedSegSlicer.Result"
"""Attribute of a result: what was found in it, see ``ResultRecord``."""
PUT_ASIDE = "FedSegSlicer.PutAside"
"""Attribute of a result that is not shown because that of another volume is."""


@dataclass(frozen=True)
class ResultRow:
    """One structure of a result.

    Attributes:
        name: what people read.
        color: red, green, blue, 0 to 255.
        volumeMl: volume in milliliters; None in a single slice or picture.
        segmentId: its segment, ``""`` if there is none.
        meanIntensity: mean of the image's values in it, None where there is none.
        checks: why a person should look at it, in words; empty if there is no reason but caution.
        areaMm2: area in a single slice, None where the size of its pixels is not known.
        voxels: number of voxels; None where only the volume is known.
    """

    name: str
    color: tuple[int, int, int]
    volumeMl: float | None
    segmentId: str
    meanIntensity: float | None = None
    checks: tuple[str, ...] = ()
    areaMm2: float | None = None
    voxels: int | None = None


@dataclass
class Former:
    """What a result replaced.

    Attributes:
        node: the result.
        segmentation: its former content with everything the user did to it; None if there was no result.
        release: what the former content was made by.
        record: what was found in it.
    """

    node: "slicer.vtkMRMLSegmentationNode"
    segmentation: "slicer.vtkSegmentation | None"
    release: str
    record: str = ""

    @classmethod
    def of(cls, node: "slicer.vtkMRMLSegmentationNode") -> "Former":
        """Return what a result holds now."""
        return cls(node, node.GetSegmentation(), node.GetAttribute(RELEASE) or "", node.GetAttribute(RECORD) or "")


def sayWhatItIs(node: "slicer.vtkMRMLSegmentationNode", release: str, record: str = "") -> None:
    """Let a result say what its new content was made by, and what was found in it."""
    node.SetAttribute(RELEASE, release)
    node.SetAttribute(RECORD, record or None)


def findResult(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> "slicer.vtkMRMLSegmentationNode | None":
    """Return the segmentation an earlier run made of this volume."""
    scene = volumeNode.GetScene()
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        if node.GetNodeReferenceID(ROLE) == volumeNode.GetID():
            return node
    return None


def resultName(source: "slicer.vtkMRMLNode") -> str:
    """Return what to call the result of a volume or a sequence; a name that was given up is free again."""
    scene, name = source.GetScene(), _("{volume} segmentation").format(volume=source.GetName())
    return str(name if scene.GetFirstNodeByName(name) is None else scene.GenerateUniqueName(name))


def segmentedVolume(node: "slicer.vtkMRMLSegmentationNode") -> "slicer.vtkMRMLScalarVolumeNode | None":
    """Return the volume that a result was made of; None if it is gone, or a moment of a sequence."""
    return node.GetNodeReference(ROLE) if node.GetScene() is not None else None


def placeResult(
    segmentation: "slicer.vtkSegmentation", volumeNode: "slicer.vtkMRMLScalarVolumeNode", release: str
) -> Former:
    """Make this the content of the volume's result node, which is made on the first run and kept on later ones.

    The node gets the volume's reference geometry and its place beside the volume in the subject hierarchy. Names and
    colors the user gave to former segments are kept. Nothing is copied: the former content stays as it is, for Undo.

    Args:
        segmentation: the new content; the segments have a surface already.
        volumeNode: what was segmented.
        release: what segmented it.

    Returns:
        What was there before.
    """
    scene = volumeNode.GetScene()
    node = findResult(volumeNode)
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLSegmentationNode")
        node.UnRegister(None)
        node.SetName(resultName(volumeNode))
        former = Former(node, None, "")
        node.SetAndObserveSegmentation(segmentation)
        scene.AddNode(node)
        node.SetNodeReferenceID(ROLE, volumeNode.GetID())
        node.CreateDefaultDisplayNodes()
    else:
        former = Former.of(node)
        keepNamesAndColors(former.segmentation, segmentation)
        _exchange(node, segmentation)
    sayWhatItIs(node, release)
    placeBeside(node, volumeNode)
    return former


def undo(former: Former) -> Former | None:
    """Restore what was there before; return what that replaced, by which it can be brought back.

    Returns:
        None where there was no result before: the node is removed and cannot be brought back.
    """
    node = former.node
    if former.segmentation is None:
        node.GetScene().RemoveNode(node)
        return None
    present = Former.of(node)
    _exchange(node, former.segmentation)
    sayWhatItIs(node, former.release, former.record)
    return present


def _exchange(node: "slicer.vtkMRMLSegmentationNode", segmentation: "slicer.vtkSegmentation") -> None:
    """Give the node other content, and tell everyone who shows its segments."""
    before, after = set(node.GetSegmentation().GetSegmentIDs()), set(segmentation.GetSegmentIDs())
    node.SetAndObserveSegmentation(segmentation)
    for segmentId in before - after:
        segmentation.InvokeEvent(slicer.vtkSegmentation.SegmentRemoved, segmentId)
    for segmentId in after - before:
        segmentation.InvokeEvent(slicer.vtkSegmentation.SegmentAdded, segmentId)
    for segmentId in segmentation.GetSegmentIDs():
        segmentation.InvokeEvent(slicer.vtkSegmentation.SegmentModified, segmentId)
    segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)
    node.Modified()


def keepNamesAndColors(former: "slicer.vtkSegmentation", new: "slicer.vtkSegmentation") -> None:
    """Give new segments the names and colors that the user gave to their predecessors.

    A predecessor has the same terminology, or else the same segment ID; it was changed by the user if it no longer has
    the name and color that it was made with.
    """
    byTerminology = {}
    for segmentId in former.GetSegmentIDs():
        byTerminology.setdefault(_tag(former.GetSegment(segmentId), _terminologyTag()), segmentId)
    for segmentId in new.GetSegmentIDs():
        segment = new.GetSegment(segmentId)
        predecessor = former.GetSegment(byTerminology.get(_tag(segment, _terminologyTag()), segmentId))
        if predecessor is None:
            continue
        given, now = _tag(predecessor, GIVEN).split(","), givenTag(predecessor).split(",")
        if len(given) == 4 and given[3] != now[3]:
            segment.SetName(predecessor.GetName())
        if len(given) == 4 and given[:3] != now[:3]:
            segment.SetColor(predecessor.GetColor())


def _terminologyTag() -> str:
    return slicer.vtkSegment.GetTerminologyEntryTagName()


def _tag(segment: "slicer.vtkSegment", name: str) -> str:
    text = vtk.mutable("")
    return str(text) if segment.GetTag(name, text) else ""


def placeBeside(node: "slicer.vtkMRMLSegmentationNode", volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Give a result the volume's reference geometry, and its place beside it in the subject hierarchy."""
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
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


def show(
    node: "slicer.vtkMRMLSegmentationNode", volumeNode: "slicer.vtkMRMLScalarVolumeNode", pieces: Pieces
) -> Iterator[None]:
    """Show the result over its volume in the slice views and in 3-D, and bring both into view; in short steps.

    The results of other volumes, which would lie over this one, are put aside; see ``bringBack``.
    """
    _showInSlices(volumeNode)
    yield
    _putOthersAside(node)
    yield
    display = node.GetDisplayNode()
    display.SetVisibility(True)
    display.SetVisibility3D(True)
    yield
    found = [piece for piece in pieces.segments if piece.surface is not None]
    if found:
        largest = max(found, key=lambda piece: len(piece.surface.points))
        slicer.vtkMRMLSliceNode.JumpAllSlices(volumeNode.GetScene(), *largest.center)
    yield
    for view in _threeDViews():
        view.resetFocalPoint()
        yield


def _threeDViews() -> list[Any]:
    layoutManager = slicer.app.layoutManager()
    count = layoutManager.threeDViewCount if layoutManager is not None else 0
    return [layoutManager.threeDWidget(index).threeDView() for index in range(count)]


def bringBack(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Show a volume and its result where that was put aside, and put the others aside."""
    node = findResult(volumeNode)
    if node is None or not node.GetAttribute(PUT_ASIDE):
        return
    with slicer.util.RenderBlocker():
        _showInSlices(volumeNode)
        _putOthersAside(node)
        node.GetDisplayNode().SetVisibility(True)
        for view in _threeDViews():
            view.resetFocalPoint()


def _putOthersAside(shown: "slicer.vtkMRMLSegmentationNode") -> None:
    shown.RemoveAttribute(PUT_ASIDE)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if node is shown or segmentedVolume(node) is None or display is None or not display.GetVisibility():
            continue
        node.SetAttribute(PUT_ASIDE, "yes")
        display.SetVisibility(False)


def _showInSlices(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Show the volume in all slice views; those that show it already stay zoomed in as they are."""
    layoutManager = slicer.app.layoutManager()
    logics = layoutManager.mrmlSliceLogics() if layoutManager is not None else vtk.vtkCollection()
    views = [logics.GetItemAsObject(index) for index in range(logics.GetNumberOfItems())]
    others = [view for view in views if view.GetSliceCompositeNode().GetBackgroundVolumeID() != volumeNode.GetID()]
    slicer.util.setSliceViewerLayers(background=volumeNode)
    for view in others:
        view.FitSliceToBackground()


def resultRows(
    node: "slicer.vtkMRMLSegmentationNode", segments: list[dict[str, Any]], doubts: list[dict[str, str]]
) -> list[ResultRow]:
    """Return the worker's list of segments with the segments' names and colors in the scene.

    Args:
        node: the result.
        segments: the worker's {name, value, code, voxels, volume_ml, area_mm2, mean_intensity}.
        doubts: the worker's {label, code, reason}.
    """
    segmentation = node.GetSegmentation()
    rows = []
    for entry in segments:
        segment = segmentation.GetSegment(f"Segment_{entry['value']}")
        name, color = entry["name"], (128, 128, 128)
        if segment is not None:
            name, color = segment.GetName(), colorOf(segment)
        reasons = tuple(doubt["reason"] for doubt in doubts if doubt["label"] == entry["name"])
        segmentId = f"Segment_{entry['value']}" if segment is not None else ""
        mean = entry["mean_intensity"]
        size = entry["volume_ml"], segmentId, mean, reasons, entry["area_mm2"], entry["voxels"]
        rows.append(ResultRow(name, color, *size))
    return rows
