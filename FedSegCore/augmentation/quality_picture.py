"""A picture of GIN samples: the original first, every sample with what was drawn for it."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from FedSegCore.augmentation.quality import GinSamples, Slice, interior
from FedSegCore.common.files import whole_file

_PANEL_INCHES = 2.6
_WINDOW = (0.5, 99.5)


def gin_grid(samples: GinSamples, *, dots_per_inch: int = 110) -> bytes:
    """Return a PNG of the original and its samples.

    Every panel is windowed on its own 0.5th to 99.5th percentile, because that is how the network meets it: after
    standardising, only relative intensities count. Axial slices appear as radiologists hold them when the image is
    LPS-oriented: the patient's right on the left, front at the top.

    Args:
        samples: what ``quality.gin_samples`` gave.
        dots_per_inch: resolution; a panel is 2.6 inches wide.
    """
    panels = [(_to_display(samples.original, samples.original), "original", "")]
    panels += [
        (
            _to_display(sample.slice, interior(sample.slice, sample.parameters)),
            f"sample {sample.number}   α = {sample.alpha:.2f}",
            f"look {sample.histogram_distance:.2f}   r {sample.correlation:+.2f}   edges {sample.edges:.2f}",
        )
        for sample in samples.samples
    ]
    columns = _columns(len(panels))
    rows = math.ceil(len(panels) / columns)
    tallness = samples.aspect * samples.original.shape[1] / samples.original.shape[2]
    height = _PANEL_INCHES * min(2.5, max(0.4, tallness)) + 0.5
    figure = Figure(figsize=(columns * _PANEL_INCHES, rows * height + 0.75), layout="constrained", facecolor="white")
    figure.suptitle(f"GIN augmentation, seed {samples.seed}, slice k = {samples.slice_index}", fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, title, measures) in zip(axes, panels, strict=False):
        _draw_panel(axis, image, title, measures, samples.aspect)
    figure.supxlabel(
        "look: histogram distance from the original (SD)   r: correlation of intensities, negative = contrast inverted"
        "\nedges: correlation of gradients, near 1 = outlines kept.   Each panel has its own window.",
        fontsize=7,
    )
    file = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return file.getvalue()


def write_gin_grid(samples: GinSamples, path: Path) -> None:
    """Write the PNG of ``gin_grid`` so that ``path`` is never half written."""
    picture = gin_grid(samples)
    with whole_file(path) as beside:
        beside.write_bytes(picture)


def _columns(panels: int) -> int:
    """Return how many columns leave the fewest places empty, in a picture a little wider than tall."""
    if panels <= 4:
        return panels
    return min(range(3, 7), key=lambda count: (-panels % count, abs(count**2 - 1.4 * panels)))


def _draw_panel(axis: Axes, image: npt.NDArray[np.float32], title: str, measures: str, aspect: float) -> None:
    axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, aspect=aspect, interpolation="nearest")
    axis.set_title(title, fontsize=9, pad=3)
    axis.text(0.5, -0.02, measures, transform=axis.transAxes, ha="center", va="top", fontsize=7)


def _to_display(image: Slice, windowed_on: Slice) -> npt.NDArray[np.float32]:
    """Return (j, i) or (j, i, 3) in [0, 1], window and level taken from ``windowed_on``."""
    low, high = np.percentile(windowed_on, _WINDOW)
    shown = np.clip((image - low) / (high - low if high > low else 1.0), 0.0, 1.0).astype(np.float32)
    return np.moveaxis(shown, 0, -1) if shown.shape[0] == 3 else shown[0]
