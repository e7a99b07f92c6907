"""Small steps that several tests take."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import slicer


def load_volume(path: Path, name: str = "scan"):
    """Load an image as Slicer does and give it its place in the subject hierarchy."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    return node


def wait_until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Run the event loop until ``done()``."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        slicer.app.processEvents()
        time.sleep(0.005)


def keep_pictures(folder: Path) -> None:
    """Copy pictures to where a person can look at them, if FEDSEG_PICTURES names a folder."""
    if os.environ.get("FEDSEG_PICTURES"):
        shutil.copytree(folder, os.environ["FEDSEG_PICTURES"], dirs_exist_ok=True)
