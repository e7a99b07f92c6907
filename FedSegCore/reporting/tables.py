"""Tables of numbers as people expect them: mean ± standard deviation, with a unit and few digits."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of the rows.
        title: words at its head, with the unit.
        digits: digits after the point of numbers that are not whole.
    """

    key: str
    title: str
    digits: int = 2


@dataclass(frozen=True)
class MeanSd:
    """A mean with its standard deviation (n - 1), None where there is only one value."""

    mean: float
    sd: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeanSd | None":
        """Return the summary of the finite values, None if there are none."""
        kept = [float(v) for v in values if v is not None and math.isfinite(v)]
        if not kept:
            return None
        return cls(statistics.fmean(kept), statistics.stdev(kept) if len(kept) > 1 else None, len(kept))


def cross_table(
    rows: Sequence[Row], *, row: str, column: str, value: str, total: str | None = None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return (column names, table rows): a MeanSd per combination of ``row`` and ``column`` in order of appearance.

    Args:
        rows: plain rows.
        row: key whose values become table rows; each result holds it under the same key.
        column: key whose values become columns.
        value: key of the number that is summarised.
        total: title of a last column over all ``column`` values; None adds none.
    """
    names = list(dict.fromkeys(str(r[column]) for r in rows))
    out: list[dict[str, Any]] = []
    for place in dict.fromkeys(r[row] for r in rows):
        own = [r for r in rows if r[row] == place]
        line: dict[str, Any] = {row: place}
        for name in names:
            line[name] = MeanSd.of([r[value] for r in own if str(r[column]) == name])
        if total is not None:
            line[total] = MeanSd.of([r[value] for r in own])
        out.append(line)
    return names + ([total] if total is not None else []), out


def table_html(columns: Sequence[Column], rows: Sequence[Row], caption: str = "") -> Markup:
    """Return a ``<table>`` that scrolls sideways on a phone; every text is escaped, absent values are a dash."""
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(_class(n > 0 and _numeric(c, rows)), c.title)
        for n, c in enumerate(columns)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(_cell(c, n, row, rows) for n, c in enumerate(columns)))
        for row in rows
    )
    title = Markup("<caption><span>{}</span></caption>").format(caption) if caption else Markup("")
    return Markup('<div class="scroll"><table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        title, head, body
    )


def format_value(value: Any, digits: int = 2) -> str:
    """Return a value as text: ``0.91 ± 0.03``, ``12``, ``1.5``, ``yes``, ``–``."""
    if isinstance(value, MeanSd):
        mean = format_value(value.mean, digits)
        return mean if value.sd is None else f"{mean} ± {value.sd:.{digits}f}"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _cell(column: Column, place: int, row: Row, rows: Sequence[Row]) -> Markup:
    text = escape(format_value(row.get(column.key), column.digits))
    if place == 0:
        return Markup('<th scope="row">{}</th>').format(text)
    return Markup("<td{}>{}</td>").format(_class(_numeric(column, rows)), text)


def _numeric(column: Column, rows: Sequence[Row]) -> bool:
    values = [row.get(column.key) for row in rows]
    return all(v is None or (isinstance(v, int | float | MeanSd) and not isinstance(v, bool)) for v in values)


def _class(numeric: bool) -> Markup:
    return Markup(' class="number"') if numeric else Markup("")
