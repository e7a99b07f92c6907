"""Diagrams and tables: right numbers, safe text, the page's own colour."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from FedSegCore.reporting.plots import curves, grouped_dots
from FedSegCore.reporting.tables import Column, MeanSd, cross_table, format_value, table_html

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def rows() -> list[dict[str, object]]:
    return [
        {"round": r, "site": site, "label": label, "dice": 0.1 * r}
        for r in (1, 2, 3)
        for site in ("A", "B")
        for label in ("liver", "<b>$x$</b>")
    ]


def draw(given: list[dict[str, object]], **more: object) -> str:
    keys = {"x": "round", "y": "dice", "panel": "site", "line": "label", "x_label": "round", "y_label": "Dice"}
    return curves(given, **{**keys, **more})


def test_curves_have_a_panel_per_site_and_a_line_per_label() -> None:
    svg = draw(rows(), colours={"liver": (1, 128, 255)})
    words = texts(svg)
    assert {"A", "B", "liver", "<b>$x$</b>", "Dice", "round"} <= set(words)
    assert "<b>" not in svg
    # One path per curve and one handle of the legend, in the given colour.
    assert len(re.findall(r'<path d="[^"]+" clip-path="[^"]+" style="fill: none; stroke: #0180ff', svg)) >= 2


@pytest.mark.parametrize("letters", [4, 15, 40])
def test_names_of_curves_stay_on_the_drawing_however_long(letters: int) -> None:
    names = [f"{n}".ljust(letters, "x") for n in range(6)]
    svg = draw([{"round": r, "site": site, "label": n, "dice": r} for r in (1, 2) for site in "AB" for n in names])
    width = float(str(ET.fromstring(svg).get("viewBox")).split()[2])
    starts = {
        element.text: float(element.get("x", "nan"))
        for element in ET.fromstring(svg).iter(f"{SVG}text")
        if element.text in names
    }
    assert starts.keys() == set(names)
    # 9 points high; a letter x is about half as wide
    assert max(starts.values()) + letters * 4.5 < width


def test_a_drawing_takes_the_pages_colour_and_width_and_is_the_same_again() -> None:
    svg = draw(rows())
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "<metadata>" not in svg
    root = ET.fromstring(svg)
    assert root.get("width") is None
    assert root.get("height") is None
    assert root.get("viewBox")
    assert svg == draw(rows())


def test_several_rows_of_one_round_are_averaged_and_gaps_left_out() -> None:
    single = [{"round": r, "site": "A", "label": "liver", "dice": v} for r, v in ((1, 0.2), (2, 0.6))]
    double = [
        {"round": r, "site": "A", "label": "liver", "dice": v}
        for r, v in ((1, 0.1), (1, 0.3), (2, 0.6), (2, None), (3, float("nan")))
    ]
    assert draw(double, y_range=(0, 1)) == draw(single, y_range=(0, 1))


def test_every_panel_may_have_a_scale_of_its_own() -> None:
    values = {"A": (0.2, 0.5), "B": (20.0, 50.0)}
    given = [{"round": r, "site": site, "label": "x", "dice": values[site][r]} for r in (0, 1) for site in values]
    assert "1.0" not in texts(draw(given))
    assert {"1.0", "50"} <= set(texts(draw(given, y_range={"A": (0, 1)})))


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([{"round": 1, "site": "A", "label": "x", "dice": None}])


def test_dots_are_one_per_row_with_a_bar_at_the_mean() -> None:
    given = [
        {"label": label, "setting": setting, "dice": value}
        for label in ("liver", "spleen")
        for setting in ("ours", "local")
        for value in (0.5, 0.7, 0.9)
    ]
    svg = grouped_dots(given, category="label", series="setting", value="dice", value_label="Dice")
    assert {"liver", "spleen", "ours", "local", "Dice"} <= set(texts(svg))
    root = ET.fromstring(svg)
    clipped = [g for g in root.iter(f"{SVG}g") if g.get("clip-path")]
    dots = sum(len(list(g.iter(f"{SVG}use"))) for g in clipped)
    assert dots == 12


def test_mean_and_spread_are_the_samples() -> None:
    values = [0.8, 0.9, 0.95, float("nan"), None]
    summary = MeanSd.of(values)
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean([0.8, 0.9, 0.95]))
    assert summary.sd == pytest.approx(np.std([0.8, 0.9, 0.95], ddof=1))
    assert summary.count == 3
    assert MeanSd.of([0.5]) == MeanSd(0.5, None, 1)
    assert MeanSd.of([None]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MeanSd(0.912, 0.034, 5), "0.91 ± 0.03"),
        (MeanSd(0.9, None, 1), "0.90"),
        (None, "–"),
        (float("nan"), "–"),
        (12, "12"),
        (True, "yes"),
        (1.005e3, "1005.00"),
        ("liver", "liver"),
    ],
)
def test_values_are_written_as_people_read_them(value: object, text: str) -> None:
    assert format_value(value) == text


def test_rows_become_a_table_of_sites_by_labels() -> None:
    given = [
        {"site": "A", "label": "liver", "dice": 0.8},
        {"site": "A", "label": "liver", "dice": 1.0},
        {"site": "A", "label": "spleen", "dice": 0.6},
        {"site": "B", "label": "liver", "dice": 0.5},
    ]
    names, table = cross_table(given, row="site", column="label", value="dice", total="all")
    assert names == ["liver", "spleen", "all"]
    assert [line["site"] for line in table] == ["A", "B"]
    assert table[0]["liver"] == MeanSd(pytest.approx(0.9), pytest.approx(np.sqrt(0.02)), 2)
    assert table[0]["all"].mean == pytest.approx(0.8)
    assert table[1]["spleen"] is None


def test_a_table_escapes_text_and_aligns_numbers() -> None:
    html = table_html(
        [Column("a", "<A>"), Column("b", "B", 1), Column("c", "C")],
        [{"a": "<script>", "b": 1.25, "c": "x"}, {"a": "y", "b": None, "c": "z"}],
        "a & b",
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;A&gt;" in html
    assert "a &amp; b" in html
    assert html.count('class="number"') == 3
    assert '<td class="number">1.2</td>' in html
    ET.fromstring(html)
