"""Slices with labels on them, in radiological orientation and true proportions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from FedSegCore.volumes.geometry import reorient
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.volume import Volume

PlaneName = Literal["axial", "coronal", "sagittal"]

# Axis of (k, j, i) that a plane cuts, and what lies at the picture's left, right, top and bottom.
_PLANES: dict[str, tuple[int, tuple[str, str, str, str]]] = {
    "axial": (0, ("R", "L", "A", "P")),
    "coronal": (1, ("R", "L", "S", "I")),
    "sagittal": (2, ("A", "P", "S", "I")),
}

_NO_PLACE_IN_PATIENT = ("US", "ES")
"""Modalities whose pictures are shown as they were taken: their axes are not the patient's."""


@dataclass(frozen=True)
class Slice:
    """A cut through a volume as it is shown: rows downwards, columns to the right.

    Attributes:
        pixels: (rows, columns), any dtype.
        aspect: height of a pixel divided by its width.
        marks: letters at left, right, top and bottom; empty where the axes are not the patient's.
    """

    pixels: npt.NDArray[Any]
    aspect: float
    marks: tuple[str, ...]


def cut(volume: Volume, plane: PlaneName, index: int) -> Slice:
    """Return one slice of the first channel, the patient's right at the picture's left (axial, coronal).

    Args:
        volume: any orientation; oblique ones are shown along their nearest axes.
        plane: which way to cut.
        index: slice number of the LPS-oriented volume, counted towards S (axial), P (coronal) or L (sagittal).
    """
    oriented = reorient(volume, "LPS")
    axis, marks = _PLANES[plane]
    pixels = np.take(oriented.array[0], index, axis=axis)
    i, j, k = oriented.grid.spacing
    aspect = {"axial": j / i, "coronal": k / i, "sagittal": k / j}[plane]
    if plane != "axial":
        pixels = pixels[::-1]  # k grows towards the head, picture rows downwards
    return Slice(pixels, aspect, () if volume.modality in _NO_PLACE_IN_PATIENT else marks)


def best_index(labels: Volume, plane: PlaneName) -> int:
    """Return the slice that shows most labels and, among those, most of each; the middle one if nothing is labelled."""
    axis, _ = _PLANES[plane]
    array = reorient(labels, "LPS").array[0]
    others = tuple(a for a in range(3) if a != axis)
    areas = np.stack([(array == value).sum(axis=others) for value in np.unique(array) if value != 0] or [[0]])
    if not areas.any():
        return array.shape[axis] // 2
    shares = areas / areas.max(axis=1, keepdims=True)
    # A label counts as shown from a third of its largest cut; the shares themselves break ties.
    return int(np.argmax((shares > 1 / 3).sum(axis=0) + shares.mean(axis=0) * 0.99))


def display_range(image: Volume) -> tuple[float, float]:
    """Return the grey values shown black and white: the soft-tissue window for CT, else robust percentiles."""
    if image.modality == "CT":
        return -160.0, 240.0
    finite = image.array[np.isfinite(image.array)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def overlay_png(
    image: Volume,
    panels: Sequence[tuple[str, Volume | None]],
    contract: LabelContract,
    *,
    plane: PlaneName = "axial",
    index: int | None = None,
    pixels: int = 360,
) -> bytes:
    """Return a PNG with one picture per panel side by side: the same slice with that panel's labels.

    Args:
        image: first channel is shown in grey.
        panels: (title, labels on the image's grid, or None for the image alone), such as image, truth and prediction.
        contract: the labels' colours.
        plane: which way to cut.
        index: slice of the LPS-oriented image; None takes the best of the first labels given.
        pixels: width of a panel.

    Raises:
        ValueError: labels lie on another grid than the image, or there is no panel.
    """
    given = [labels for _, labels in panels if labels is not None]
    if not panels or any(not labels.grid.close_to(image.grid) for labels in given):
        raise ValueError("give panels whose labels lie on the image's grid")
    if index is None:
        index = best_index(given[0], plane) if given else reorient(image).grid.shape[_PLANES[plane][0]] // 2
    grey = cut(image, plane, index)
    rows, columns = grey.pixels.shape
    dpi, title = 100.0, 0.28
    width = pixels / dpi
    height = width * rows * grey.aspect / columns
    figure = Figure(figsize=(width * len(panels), height + title), dpi=dpi, facecolor="black")
    FigureCanvasAgg(figure)
    for n, (name, labels) in enumerate(panels):
        place = (n / len(panels), 0.0, 1 / len(panels) * 0.985, height / (height + title))
        axes = figure.add_axes(place)
        axes.set_title(name, color="white", fontsize=10, pad=4, parse_math=False)
        axes.set_axis_off()
        _draw(axes, grey, display_range(image), None if labels is None else cut(labels, plane, index).pixels, contract)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black")
    return stream.getvalue()


def _draw(
    axes: Axes,
    grey: Slice,
    shown: tuple[float, float],
    labels: npt.NDArray[Any] | None,
    contract: LabelContract,
) -> None:
    values = np.nan_to_num(grey.pixels.astype(np.float32), nan=shown[0])
    axes.imshow(
        values, cmap="gray", vmin=shown[0], vmax=shown[1], aspect=grey.aspect, interpolation="bilinear", resample=True
    )
    if labels is not None:
        for label in contract.labels:
            mask = labels == label.value
            if mask.any():
                colour = tuple(c / 255 for c in label.colour)
                fill = np.zeros((*mask.shape, 4), np.float32)
                fill[mask] = (*colour, 0.28)
                axes.imshow(fill, aspect=grey.aspect, interpolation="nearest")
                # Padded, so that outlines close where a structure touches the border.
                y, x = (np.arange(-1, n + 1) for n in mask.shape)
                axes.contour(x, y, np.pad(mask, 1).astype(np.float32), levels=[0.5], colors=[colour], linewidths=1.4)
    rows, columns = values.shape
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    for mark, (across, up) in zip(grey.marks, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=False):
        axes.text(
            across, up, mark, color="#ffd166", fontsize=10, ha="center", va="center", transform=axes.transAxes,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip
