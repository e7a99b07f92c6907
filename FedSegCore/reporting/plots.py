"""Diagrams as SVG that takes the page's text colour, so that it reads in light, dark and print."""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Row = Mapping[str, Any]
Rgb = tuple[int, int, int]

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""

_CYCLE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a4f", "#8c6bb1")
"""Okabe and Ito's colours, which people with colour-blindness can tell apart."""

_MARKERS = "osD^vPX*"

_LEGEND_MARK, _LEGEND_LETTER = 0.5, 0.07
"""Inches that a curve's sample and a letter of its name take in the legend."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedseg",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.18,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def curves(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    panel: str,
    line: str,
    x_label: str,
    y_label: str,
    colours: Mapping[str, Rgb] | None = None,
    y_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
    columns: int = 3,
) -> str:
    """Return an SVG with one small diagram per ``panel`` and in it one curve per ``line``.

    Args:
        rows: plain rows; x and y are numbers, rows whose y is None or not finite are left out.
        x: key of the horizontal value, such as ``"round"``; several rows with the same x are averaged.
        y: key of the vertical value, such as ``"dice"``.
        panel: key that splits into diagrams, such as ``"site"``.
        line: key that splits into curves, such as ``"label"``.
        x_label: words under the horizontal axis.
        y_label: words beside the vertical axis.
        colours: RGB 0..255 by line name; others come from a colour-blind-safe cycle.
        y_range: limits of the vertical axis; None fits the values. By panel: every diagram has an axis of its own,
            which fits the values where no limits are named.
        columns: diagrams beside one another.

    Raises:
        ValueError: no row has a value to draw.
    """
    kept = _with_values(rows, (y,))
    panels, lines = _distinct(kept, panel), _distinct(kept, line)
    paints = _paints(lines, colours)
    columns = min(columns, len(panels))
    count = -(-len(panels) // columns)

    points = {
        name: {curve: _means([r for r in kept if (r[panel], r[line]) == (name, curve)], x, y) for curve in lines}
        for name in panels
    }

    def draw(figure: Figure) -> None:
        axes = figure.subplots(count, columns, squeeze=False, sharey=not isinstance(y_range, Mapping))
        ranges = {name: y_range.get(name) if isinstance(y_range, Mapping) else y_range for name in points}
        _draw_panels(axes, points, paints, ranges, x_label)
        for row in axes:
            row[0].set_ylabel(y_label)
        _legend(figure, axes.ravel()[0], lines, paints, columns)

    return _svg(draw, (3.1 * columns + 0.4, 2.3 * count + 0.5))


def _draw_panels(
    axes: npt.NDArray[Any],
    panels: Mapping[Any, Mapping[Any, list[tuple[float, float]]]],
    paints: Mapping[Any, str],
    ranges: Mapping[Any, tuple[float, float] | None],
    x_label: str,
) -> None:
    for spare in axes.ravel()[len(panels) :]:
        spare.set_axis_off()
    for place, (name, points) in zip(axes.ravel(), panels.items(), strict=False):
        place.set_title(str(name), loc="left")
        _draw_lines(place, points, paints)
        _fit(place, ranges[name])
        place.xaxis.get_major_locator().set_params(integer=True)
        place.set_xlabel(x_label)


def grouped_dots(
    rows: Sequence[Row],
    *,
    category: str,
    series: str,
    value: str,
    value_label: str,
    colours: Mapping[str, Rgb] | None = None,
    value_range: tuple[float, float] | None = None,
) -> str:
    """Return an SVG with one column of dots per category and series: every row a dot, their mean a bar.

    Args:
        rows: plain rows; rows whose value is None or not finite are left out.
        category: key of the horizontal groups, such as ``"label"``.
        series: key of what is compared in each group, such as ``"setting"``.
        value: key of the number.
        value_label: words beside the vertical axis.
        colours: RGB 0..255 by series name.
        value_range: limits of the vertical axis; None fits the values.

    Raises:
        ValueError: no row has a value to draw.
    """
    kept = _with_values(rows, (value,))
    categories, names = _distinct(kept, category), _distinct(kept, series)
    paints = _paints(names, colours)
    step = 0.8 / len(names)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for c, group in enumerate(categories):
            for n, name in enumerate(names):
                values = [row[value] for row in kept if row[category] == group and row[series] == name]
                _draw_column(axes, c - 0.4 + step * (n + 0.5), step, values, paints[name])
        axes.set_xticks(range(len(categories)), [str(c) for c in categories])
        axes.grid(False, axis="x")
        axes.set_ylabel(value_label)
        _fit(axes, value_range)
        _legend(figure, axes, names, paints, 4)

    return _svg(draw, (max(5.0, 0.5 + len(categories) * (0.5 + 0.28 * len(names))), 3.2))


def _draw_lines(axes: Axes, points: Mapping[Any, list[tuple[float, float]]], paints: Mapping[Any, str]) -> None:
    for n, (name, known) in enumerate(points.items()):
        if known:
            marker = _MARKERS[n % len(_MARKERS)]
            axes.plot(*zip(*known, strict=True), color=paints[name], marker=marker, ms=3, lw=1.5)


def _draw_column(axes: Axes, centre: float, step: float, values: Sequence[float], paint: str) -> None:
    """Draw one dot per value around ``centre``, in a column ``step`` wide, and a bar at their mean."""
    if not values:
        return
    # Spread evenly, not at random: the same rows give the same picture.
    aside = (np.arange(len(values)) - (len(values) - 1) / 2) * min(0.05, 0.6 * step / len(values))
    axes.plot(centre + aside, values, marker="o", ms=3.5, ls="", color=paint, alpha=0.6)
    axes.hlines(float(np.mean(values)), centre - 0.42 * step, centre + 0.42 * step, color=paint, lw=2.5)


def _fit(axes: Axes, limits: tuple[float, float] | None) -> None:
    if limits is not None:
        axes.set_ylim(*limits)


def _with_values(rows: Sequence[Row], keys: Iterable[str]) -> list[Row]:
    kept = [r for r in rows if all(r[k] is not None and np.isfinite(r[k]) for k in keys)]
    if not kept:
        raise ValueError("there is nothing to draw: no row has a value")
    return kept


def _distinct(rows: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _means(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    places = sorted({float(row[x]) for row in rows})
    return [(place, float(np.mean([row[y] for row in rows if row[x] == place]))) for place in places]


def _paints(names: Sequence[Any], colours: Mapping[str, Rgb] | None) -> dict[Any, str]:
    given = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in (colours or {}).items()}
    return {name: given.get(name, _CYCLE[n % len(_CYCLE)]) for n, name in enumerate(names)}


def _legend(figure: Figure, axes: Axes, names: Sequence[Any], paints: Mapping[Any, str], columns: int) -> None:
    handles = [
        axes.plot([], [], color=paints[name], marker=_MARKERS[n % len(_MARKERS)], ms=5, lw=1.5)[0]
        for n, name in enumerate(names)
    ]
    widest = _LEGEND_MARK + _LEGEND_LETTER * max(len(str(name)) for name in names)
    fitting = max(1, int(figure.get_figwidth() / widest))
    ncols = min(fitting, max(2, columns * 2))
    figure.legend(handles, [str(n) for n in names], loc="outside upper left", ncols=ncols)


def _svg(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Matplotlib gives a fixed size; a page wants a drawing as wide as itself, within what can be read.
    limits = f"max-width: {size[0] * 100:.0f}px; min-width: {size[0] * 68:.0f}px"
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="{limits}"', text, count=1)
    return text.replace(_INK, "currentColor")
