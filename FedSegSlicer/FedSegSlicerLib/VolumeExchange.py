"""MRML volumes to files the worker reads, without holding up the GUI thread."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
import vtk
from slicer.i18n import tr as _

from .Background import onThread
from .Errors import UserError
from .PrivateFolder import PrivateFolder
from .WorkerProcess import CallLater

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class VolumeSnapshot:
    """A volume's voxels and place, readable from any thread.

    Attributes:
        array: voxels with axes (k, j, i), or (k, j, i, c) for color; shared with the scene, not copied.
        ijkToLPS: 4x4, voxel index (i, j, k, 1) to LPS mm, row by row.
        scalars: VTK's array, whose memory ``array`` is; of volumes that were read from a file.
    """

    array: "np.ndarray"
    ijkToLPS: tuple[tuple[float, ...], ...]
    scalars: "vtk.vtkDataArray | None" = None


def checkVolume(volumeNode: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
    """Raise UserError if this volume cannot be segmented, saying why and what to do."""
    if volumeNode is None:
        raise UserError("volume.none", _("No volume is chosen."), _("Choose the volume to segment."))
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise UserError("volume.labels", _("This is a label map, not an image."), _("Choose the image it belongs to."))
    image = volumeNode.GetImageData()
    if image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None:
        raise UserError("volume.empty", _("This volume has no voxels."), _("Load the image again."))
    if volumeNode.GetParentTransformNode() is not None:
        raise UserError(
            "volume.transformed",
            _("A transform is applied to this volume, so the result would not lie where the image is shown."),
            _("Harden the transform (Transforms module), or remove it, and try again."),
        )
    if volumeNode.IsA("vtkMRMLMultiVolumeNode"):
        raise UserError(
            "volume.multi-volume",
            _("This is a multi-volume: several images in one."),
            _("Load it as a volume sequence instead: it is a choice in the application's settings for DICOM."),
        )
    if volumeNode.GetScene() is None:
        raise goneError()
    if isSequenceProxy(volumeNode):
        raise UserError(
            "volume.four-dimensional",
            _("This is one moment of a 4-D sequence, and changes when that is played."),
            _("'Clone' it in the Data module, and use the copy."),
        )
    if image.GetNumberOfScalarComponents() not in (1, 3, 4):
        raise UserError(
            "volume.components",
            _("Each voxel of this volume holds {count} values.").format(count=image.GetNumberOfScalarComponents()),
            _("Choose a grayscale or a color image."),
        )


def isImage(node: "slicer.vtkMRMLNode | None") -> bool:
    """Return whether a node is an image that is listed, and no label map."""
    isVolume = node is not None and node.IsA("vtkMRMLScalarVolumeNode")
    return bool(isVolume and not node.IsA("vtkMRMLLabelMapVolumeNode") and not node.GetHideFromEditors())


def goneError() -> UserError:
    """Return the error of a volume that was removed while it was needed."""
    return UserError("volume.gone", _("The volume was removed meanwhile."), _("Load it again."))


def isSequenceProxy(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> bool:
    """Return whether the volume shows the current item of a sequence (a 4-D image) and changes when that is played."""
    scene = volumeNode.GetScene()
    browsers = [
        scene.GetNthNodeByClass(index, "vtkMRMLSequenceBrowserNode")
        for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode"))
    ]
    return any(browser.GetSequenceNode(volumeNode) is not None for browser in browsers)


def knownModality(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> str | None:
    """Return the DICOM modality code Slicer knows of a volume (from its series), None if it knows none.

    Of a moment of a sequence, which lies in a scene of its own, the volume that shows it has to be asked.
    """
    if volumeNode.GetScene() is not slicer.mrmlScene:
        return None  # asking would make a subject hierarchy there
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    if hierarchy is None:
        return None
    item = hierarchy.GetItemByDataNode(volumeNode)
    inHierarchy = item != hierarchy.GetInvalidItemID()
    code = (hierarchy.GetItemAttribute(item, "DICOM.Modality") if inHierarchy else "") or ""
    return code if code.isalpha() and code.isupper() and 2 <= len(code) <= 16 else None


def takeSnapshot(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> VolumeSnapshot:
    """Return the volume's voxels and place; quick, since nothing is copied."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    # RAS to LPS turns the signs of the first two rows.
    rows = tuple(
        tuple(sign * matrix.GetElement(row, column) for column in range(4)) for row, sign in enumerate((-1, -1, 1, 1))
    )
    return VolumeSnapshot(slicer.util.arrayFromVolume(volumeNode), rows)


def writeNrrd(snapshot: VolumeSnapshot, path: Path) -> None:
    """Write an uncompressed NRRD file; neither names nor attributes of the volume are written.

    Written here and not by Slicer's storage nodes, because those work on the GUI thread only.
    """
    array = snapshot.array
    types = {"int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32",
             "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float32": "float",
             "float64": "double"}  # fmt: skip
    if array.dtype.name not in types:
        raise UserError(
            "volume.voxel-type",
            _("Voxels of type {type} cannot be segmented.").format(type=array.dtype.name),
            _("Convert the volume with 'Cast Scalar Volume'."),
        )
    matrix = snapshot.ijkToLPS
    axes = ["(" + ",".join(repr(float(matrix[row][axis])) for row in range(3)) + ")" for axis in range(3)]
    isColor = array.ndim == 4
    header = [
        "NRRD0005",
        f"type: {types[array.dtype.name]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(size) for size in reversed(array.shape)),
        "space directions: " + ("none " if isColor else "") + " ".join(axes),
        "kinds: " + ("vector " if isColor else "") + "domain domain domain",
        f"endian: {'little' if array.dtype.newbyteorder('=').str[0] != '>' else 'big'}",
        "encoding: raw",
        "space origin: (" + ",".join(repr(float(matrix[row][3])) for row in range(3)) + ")",
    ]
    beside = path.with_suffix(".part")
    try:
        with beside.open("wb") as file:
            file.write(("\n".join(header) + "\n\n").encode("ascii"))
            array.tofile(file)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)  # on a full disk it would take the room that is asked for
        raise


class VolumeExchange:
    """A private folder in which volumes are handed to the worker, and which is emptied afterwards.

    A volume that has not changed since it was last written is not written again. A file is deleted when another volume
    has been written, unless somebody keeps it.

    Args:
        callLater: see CallLater.
    """

    def __init__(self, callLater: CallLater) -> None:
        self._callLater = callLater
        self._folder: PrivateFolder | None = None
        self._written: tuple[object, Path] | None = None
        self._kept: list[Path] = []
        self._count = 0

    def folder(self) -> Path:
        """Return the folder (readable by this user only), made on first use and where something has cleaned it away.

        Raises:
            UserError: ``disk.full``: it could not be made.
        """
        if self._folder is None or not self._folder.path.is_dir():
            self.clear()
            try:
                self._folder = PrivateFolder()
            except OSError as error:
                raise unwritable(error) from error
        return self._folder.path

    def export(
        self,
        volumeNode: "slicer.vtkMRMLScalarVolumeNode",
        onDone: Callable[[Path], None],
        onError: Callable[[UserError], None],
    ) -> None:
        """Write the volume as NRRD on a thread of its own, then call back; checks it first (UserError is raised)."""
        checkVolume(volumeNode)
        key = self._keyOf(volumeNode)
        if self._written is not None and self._written[0] == key and self._written[1].is_file():
            path = self._written[1]
            self._callLater(0, lambda: onDone(path))
            return
        self._forgetWritten()
        self._count += 1
        path = self.folder() / f"volume-{self._count}.nrrd"
        snapshot = takeSnapshot(volumeNode)

        def done(_none: None) -> None:
            self._forgetWritten()  # another volume may have been written meanwhile
            self._written = (key, path)
            onDone(path)

        onThread(self._callLater, lambda: writeNrrd(snapshot, path), done, onError, unwritable)

    def keep(self, path: Path) -> None:
        """Leave this file where it is, whatever is written meanwhile, until ``letGo`` was called as often."""
        self._kept.append(path)

    def letGo(self, path: Path) -> None:
        """Need this file no more."""
        if path in self._kept:
            self._kept.remove(path)
            self._tidy(path)

    def clear(self) -> None:
        """Delete everything that was written."""
        self._written = None
        self._kept.clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _forgetWritten(self) -> None:
        former, self._written = self._written, None
        if former is not None:
            self._tidy(former[1])

    def _tidy(self, path: Path) -> None:
        isCurrent = self._written is not None and self._written[1] == path
        if not isCurrent and path not in self._kept:
            # A worker that still reads it keeps it on Windows; it is then deleted with the folder.
            with contextlib.suppress(OSError):
                path.unlink()

    @staticmethod
    def _keyOf(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> object:
        image = volumeNode.GetImageData()
        matrix = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(matrix)
        place = tuple(matrix.GetElement(row, column) for row in range(4) for column in range(4))
        return (volumeNode.GetID(), image.GetMTime(), image.GetPointData().GetScalars().GetMTime(), place)


def unwritable(error: Exception) -> UserError:
    """Return the error of a file that could not be written for the worker."""
    logging.warning("FedSegSlicer: the volume could not be written: %s", type(error).__name__)
    return UserError(
        "disk.full",
        _("The volume could not be written to the temporary folder."),
        _("Free some space on that disk, and try again."),
    )


def ofTemporaryFolder(error: UserError) -> UserError:
    """Return a worker's error in the user's words, who never chose the folder that it could not write to."""
    if error.code != "file.unwritable":
        return error
    return UserError(
        "disk.full",
        _("What was computed could not be written to the temporary folder."),
        _("Free some space on that disk, and try again."),
    )
