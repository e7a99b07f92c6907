"""Slicer's own views, drawn off screen, and what they show."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer
import vtk
from PIL import Image
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition
from vtkmodules.util.numpy_support import vtk_to_numpy


@contextmanager
def offscreen_views(kinds: Sequence[ViewLayoutDefinition], side: int) -> Iterator[list]:
    """Yield square views that do not outlive the block: each change of the scene draws them."""
    manager = slicer.app.core.view_manager
    manager.register_factory(DirectViewFactory(do_render_offscreen=True))
    views = [manager.create_view(kind) for kind in kinds]
    for view in views:
        view.render_window().SetSize(side, side)
    yield views
    for view in views:
        view.set_render_blocked(True)
        view.set_scene(None)
        manager.remove_view(view.get_singleton_tag())
        view.finalize()


def pixels_of(view) -> np.ndarray:
    """Return what a view shows as uint8 (row, column, RGB), the first row on top."""
    view.render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(view.render_window())
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1]


def save(pixels: np.ndarray, path: Path) -> None:
    """Write pixels as a picture."""
    Image.fromarray(pixels).save(path)
