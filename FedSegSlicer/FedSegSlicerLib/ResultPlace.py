"""Where a result goes: beside its volume, or to its moment of a sequence that plays along with the image."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import slicer

from .ResultPieces import Pieces
from .SegmentationResult import (
    ROLE,
    Former,
    findResult,
    keepNamesAndColors,
    placeBeside,
    placeResult,
    resultName,
    sayWhatItIs,
    show,
    undo,
)

if TYPE_CHECKING:
    from slicer import (
        vtkMRMLScalarVolumeNode,
        vtkMRMLSegmentationNode,
        vtkMRMLSequenceBrowserNode,
        vtkMRMLSequenceNode,
        vtkSegmentation,
    )


class ResultPlace(Protocol):
    """Takes a result into the scene."""

    def key(self) -> str:
        """Return what tells this place from all others of the scene."""

    def isPresent(self) -> bool:
        """Return whether what was segmented is still there."""

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """Put the result into the scene; return what it replaced."""

    def result(self) -> "vtkMRMLSegmentationNode | None":
        """Return what is there now."""

    def undo(self, former: Former) -> Former | None:
        """Restore what ``put`` replaced; return what that replaced, None where nothing is left."""

    def show(self, former: Former, pieces: Pieces) -> Iterator[None]:
        """Show it, in short steps."""


class VolumePlace:
    """A result beside its volume.

    Args:
        volumeNode: what is segmented.
    """

    def __init__(self, volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        self._volumeNode = volumeNode

    def key(self) -> str:
        """See ResultPlace."""
        return str(self._volumeNode.GetID())

    def isPresent(self) -> bool:
        """See ResultPlace."""
        return bool(slicer.mrmlScene.IsNodePresent(self._volumeNode))

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """See ResultPlace."""
        return placeResult(segmentation, self._volumeNode, release)

    def result(self) -> "vtkMRMLSegmentationNode | None":
        """See ResultPlace."""
        return findResult(self._volumeNode) if self.isPresent() else None

    def undo(self, former: Former) -> Former | None:
        """See ResultPlace."""
        return undo(former)

    def show(self, former: Former, pieces: Pieces) -> Iterator[None]:
        """See ResultPlace."""
        for _step in show(former.node, self._volumeNode, pieces):
            yield
            if not (self.isPresent() and slicer.mrmlScene.IsNodePresent(former.node)):
                return


class FramePlace:
    """A result as one moment of a sequence of segmentations, which plays along with the images it was made of.

    Args:
        browser: plays the images.
        images: the sequence of images.
        index: which moment.
    """

    def __init__(self, browser: "vtkMRMLSequenceBrowserNode", images: "vtkMRMLSequenceNode", index: int) -> None:
        self._browser = browser
        self._images = images
        self._index = index

    def key(self) -> str:
        """See ResultPlace."""
        return f"{self._images.GetID()} {self._images.GetNthIndexValue(self._index)}"

    def isPresent(self) -> bool:
        """See ResultPlace."""
        scene = slicer.mrmlScene
        return bool(scene.IsNodePresent(self._browser) and scene.IsNodePresent(self._images))

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """See ResultPlace. Names and colors the user gave to this moment's former segments are kept."""
        results = resultSequence(self._images) or self._newSequence()
        node = self.result()
        if node is None:
            empty = slicer.vtkMRMLSegmentationNode()
            empty.SetName(results.GetName())
            results.SetDataNodeAtValue(empty, self._images.GetNthIndexValue(self._index))  # which makes a copy
            node = self.result()
            former = Former(node, None, "")
        else:
            former = Former.of(node)
            keepNamesAndColors(former.segmentation, segmentation)
        node.SetAndObserveSegmentation(segmentation)
        sayWhatItIs(node, release)
        if not self._browser.IsSynchronizedSequenceNode(results, True):
            self._browser.AddSynchronizedSequenceNode(results)
            self._browser.SetSaveChanges(results, True)  # what the user changes stays when another moment is shown
            # A moment without a result shows none, and not that of the moment before.
            self._browser.SetMissingItemMode(results, self._browser.MissingItemSetToDefault)
        return former

    def result(self) -> "vtkMRMLSegmentationNode | None":
        """See ResultPlace."""
        return resultOfFrame(self._images, self._index) if self.isPresent() else None

    def undo(self, former: Former) -> Former | None:
        """See ResultPlace."""
        node, results, present = self.result(), resultSequence(self._images), None
        if former.segmentation is None:
            results.RemoveDataNodeAtValue(self._images.GetNthIndexValue(self._index))
            if results.GetNumberOfDataNodes() == 0:
                self._removeSequence(results)
        else:
            present = Former.of(node)
            node.SetAndObserveSegmentation(former.segmentation)
            sayWhatItIs(node, former.release, former.record)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
        return present

    def show(self, _former: Former, pieces: Pieces) -> Iterator[None]:
        """See ResultPlace: the image and the result of this moment."""
        self._browser.SetSelectedItemNumber(self._index)
        yield
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
        yield
        results = resultSequence(self._images)
        if results is None:
            return  # somebody has removed it
        image, result = (self._browser.GetProxyNode(sequence) for sequence in (self._images, results))
        if image is not None and result is not None:
            placeBeside(result, image)
            result.CreateDefaultDisplayNodes()
            yield from show(result, image, pieces)

    def _newSequence(self) -> "vtkMRMLSequenceNode":
        results = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
        results.SetName(resultName(self._images))
        results.SetIndexName(self._images.GetIndexName())
        results.SetIndexUnit(self._images.GetIndexUnit())
        results.SetIndexType(self._images.GetIndexType())
        results.SetNodeReferenceID(ROLE, self._images.GetID())
        return results

    def _removeSequence(self, results: "vtkMRMLSequenceNode") -> None:
        """Leave the scene as it was before the first result: an empty sequence would only be in the way."""
        shown = self._browser.GetProxyNode(results)
        self._browser.RemoveSynchronizedSequenceNode(results.GetID())
        for node in (shown, results):
            if slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)


def resultSequence(images: "vtkMRMLSequenceNode") -> "vtkMRMLSequenceNode | None":
    """Return the sequence of segmentations that earlier runs made of a sequence of images."""
    scene = images.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSequenceNode")
        if node.GetNodeReferenceID(ROLE) == images.GetID():
            return node
    return None


def resultOfFrame(images: "vtkMRMLSequenceNode", index: int) -> "vtkMRMLSegmentationNode | None":
    """Return the result of one moment of a sequence of images."""
    results = resultSequence(images)
    return results.GetDataNodeAtValue(images.GetNthIndexValue(index)) if results is not None else None


def placeOf(volumeNode: "vtkMRMLScalarVolumeNode") -> ResultPlace:
    """Return where a volume's result goes: for one that shows a sequence, the moment it shows now."""
    scene = volumeNode.GetScene()
    browsers = scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode") if scene is not None else 0
    for number in range(browsers):
        browser = scene.GetNthNodeByClass(number, "vtkMRMLSequenceBrowserNode")
        images, master = browser.GetSequenceNode(volumeNode), browser.GetMasterSequenceNode()
        if images is not None and master is not None:
            value = master.GetNthIndexValue(browser.GetSelectedItemNumber())
            index = images.GetItemNumberFromIndexValue(value)
            return FramePlace(browser, images, index) if index >= 0 else VolumePlace(volumeNode)
    return VolumePlace(volumeNode)
