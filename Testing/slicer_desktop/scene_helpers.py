"""Small steps that several tests take."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer
import vtk


def load_volume(path: Path, name: str = "scan"):
    """Load an image as Slicer does and give it its place in the subject hierarchy."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    return node


def make_finer(node, times: int) -> None:
    """Cut every voxel of a volume into ``times`` along each axis: the same anatomy, and that much more to be done."""
    array, spacing = slicer.util.arrayFromVolume(node), np.array(node.GetSpacing())
    finer = array.repeat(times, 0).repeat(times, 1).repeat(times, 2)
    ijk_to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijk_to_ras)
    first = ijk_to_ras.MultiplyPoint((*[0.5 / times - 0.5] * 3, 1.0))[:3]
    slicer.util.updateVolumeFromArray(node, finer)
    node.SetSpacing(*(spacing / times))
    node.SetOrigin(*first)


def wait_until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Run the event loop until ``done()``; on a busy machine FEDSEG_PATIENCE=5 waits five times as long."""
    end = time.monotonic() + seconds * float(os.environ.get("FEDSEG_PATIENCE", "1"))
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        slicer.app.processEvents()
        slicer.app.rest(0.005)


@contextmanager
def neutral_paths(top) -> Iterator[None]:
    """Show a home folder instead of the test's own temporary one, so that pictures are the same everywhere."""
    from PySide6 import QtWidgets

    ours = re.compile(re.escape(tempfile.gettempdir()) + r"/pytest-of-[^/]+/pytest-\d+/[^/]+(?=/|$|[<\s])")
    shown = [w for kind in (QtWidgets.QLabel, QtWidgets.QLineEdit) for w in top.findChildren(kind)]
    changed = [(widget, widget.text()) for widget in shown if ours.search(widget.text())]
    for widget, text in changed:
        widget.blockSignals(True)
        widget.setText(ours.sub("/home/grey", text))
    yield
    for widget, text in changed:
        widget.setText(text)
        widget.blockSignals(False)


def keep_pictures(folder: Path) -> None:
    """Copy pictures to where a person can look at them, if FEDSEG_PICTURES names a folder."""
    if os.environ.get("FEDSEG_PICTURES"):
        shutil.copytree(folder, os.environ["FEDSEG_PICTURES"], dirs_exist_ok=True)


def bring_in(labels: Path, volume, release: str = "tiny-CT-v2", contract=None):
    """Bring a segmentation file into the scene as the worker's result of ``volume``; return what it replaced."""
    from FedSegSlicerLib.ResultImport import ijkToRasOf
    from FedSegSlicerLib.ResultPieces import build, readPieces
    from FedSegSlicerLib.SegmentationResult import placeResult, show

    from FedSegCore.common.progress import Progress
    from FedSegCore.phantoms.torso import TORSO_CONTRACT
    from FedSegCore.volumes.display_pieces import write_pieces
    from FedSegCore.volumes.reading import read_label_map

    place = ijkToRasOf(volume)
    with tempfile.TemporaryDirectory() as folder:
        shown = (contract or TORSO_CONTRACT).labels
        described = write_pieces(read_label_map(labels), shown, Path(folder), Progress())
        pieces = readPieces(Path(folder), described, place, volume.GetImageData().GetDimensions())
    segmentation = slicer.vtkSegmentation()
    for _step in build(pieces, place, segmentation):
        pass
    former = placeResult(segmentation, volume, release)
    for _step in show(former.node, volume, pieces):
        pass
    return former


def save_and_load(folder: Path) -> None:
    """Write every volume, every segmentation and the scene, empty the scene, and load it again."""
    scene = slicer.mrmlScene
    for kind, ending in (("vtkMRMLScalarVolumeNode", ".nrrd"), ("vtkMRMLSegmentationNode", ".seg.nrrd")):
        for number in range(scene.GetNumberOfNodesByClass(kind)):
            node = scene.GetNthNodeByClass(number, kind)
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetFileName(str(folder / f"{kind}{number}{ending}"))
            assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(folder / "scene.mrml"))
    scene.SetRootDirectory(str(folder))
    assert scene.Commit()
    scene.Clear(False)
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Import()
