"""Where a result goes: beside its volume, or to its moment of a sequence that plays along with the image."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import slicer
from slicer.i18n import tr as _

from .ResultPieces import Pieces
from .SegmentationResult import RELEASE, ROLE, Former, placeResult, show

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

    def isPresent(self) -> bool:
        """Return whether what was segmented is still there."""

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """Put the result into the scene; return what it replaced."""

    def show(self, former: Former, pieces: Pieces) -> Iterator[None]:
        """Show it, in short steps."""


class VolumePlace:
    """A result beside its volume.

    Args:
        volumeNode: what is segmented.
    """

    def __init__(self, volumeNode: "vtkMRMLScalarVolumeNode") -> None:
        self._volumeNode = volumeNode

    def isPresent(self) -> bool:
        """See ResultPlace."""
        return bool(slicer.mrmlScene.IsNodePresent(self._volumeNode))

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """See ResultPlace."""
        return placeResult(segmentation, self._volumeNode, release)

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

    def isPresent(self) -> bool:
        """See ResultPlace."""
        scene = slicer.mrmlScene
        return bool(scene.IsNodePresent(self._browser) and scene.IsNodePresent(self._images))

    def put(self, segmentation: "vtkSegmentation", release: str) -> Former:
        """See ResultPlace."""
        results = resultSequence(self._images) or self._newSequence()
        moment = slicer.vtkMRMLSegmentationNode()
        moment.SetName(results.GetName())
        moment.SetAndObserveSegmentation(segmentation)
        moment.SetAttribute(RELEASE, release)
        results.SetDataNodeAtValue(moment, self._images.GetNthIndexValue(self._index))
        if not self._browser.IsSynchronizedSequenceNode(results, True):
            self._browser.AddSynchronizedSequenceNode(results)
        return Former(moment, None, "")

    def show(self, _former: Former, pieces: Pieces) -> Iterator[None]:
        """See ResultPlace: the image and the result of this moment."""
        self._browser.SetSelectedItemNumber(self._index)
        yield
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browser)
        yield
        image, result = (self._browser.GetProxyNode(s) for s in (self._images, resultSequence(self._images)))
        if image is not None and result is not None:
            result.CreateDefaultDisplayNodes()
            yield from show(result, image, pieces)

    def _newSequence(self) -> "vtkMRMLSequenceNode":
        results = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
        results.SetName(
            slicer.mrmlScene.GenerateUniqueName(_("{volume} segmentation").format(volume=self._images.GetName()))
        )
        results.SetIndexName(self._images.GetIndexName())
        results.SetIndexUnit(self._images.GetIndexUnit())
        results.SetIndexType(self._images.GetIndexType())
        results.SetNodeReferenceID(ROLE, self._images.GetID())
        return results


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
