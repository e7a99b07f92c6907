"""The report page: whole, safe, needing nothing from anywhere."""

import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from FedSegCore.reporting.html import report_html, write_report
from FedSegCore.reporting.overlays import overlay_png
from FedSegCore.reporting.plots import curves
from FedSegCore.reporting.sections import (
    Details,
    Fact,
    Facts,
    Gallery,
    Legend,
    Notice,
    Picture,
    Section,
    Table,
    Text,
)
from FedSegCore.reporting.tables import Column
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.volume import Grid, Volume

CONTRACT = LabelContract(
    labels=(Label(name="li<ver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(1, 2, 3)),)
)
NASTY = '<img src=x onerror="alert(1)"> & "more"'


class Page(HTMLParser):
    """Every tag with its attributes, the text outside of style, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "link", "br"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


def sections() -> list[Section]:
    svg = curves(
        [{"x": n, "y": n, "p": NASTY, "l": NASTY} for n in (1, 2)],
        x="x", y="y", panel="p", line="l", x_label="x", y_label="y",
    )  # fmt: skip
    png = overlay_png(Volume(np.zeros((1, 1, 8, 20), np.int16), Grid((1, 8, 20)), "CT"), [("t", None)], CONTRACT)
    return [
        Section(NASTY, [Text(f"one {NASTY}\n\ntwo"), Facts([Fact("0.91", NASTY, NASTY)]), Notice(NASTY)]),
        Section("Pictures", [Legend(CONTRACT), Picture(svg, NASTY), Gallery([Picture(png, NASTY), Picture(png)])]),
        Section(
            "More", [Details(NASTY, [Table([Column("a", NASTY)], [{"a": NASTY}], NASTY), Notice("ok", good=True)])]
        ),
    ]


@pytest.fixture(scope="module")
def page() -> tuple[str, Page]:
    text = report_html(NASTY, sections(), lead=NASTY, made=datetime(2026, 11, 21, 10, 5))
    return text, Page(text)


def test_the_page_asks_nothing_of_the_network(page: tuple[str, Page]) -> None:
    text, parsed = page
    for tag, attributes in parsed.tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    assert "url(http" not in text
    assert "@import" not in text
    # Only the names of SVG's XML namespaces look like addresses.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    policy = [a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_texts_stay_texts(page: tuple[str, Page]) -> None:
    _text, parsed = page
    assert "onerror" not in {name for _, attributes in parsed.tags for name in attributes}
    assert len([t for t, _ in parsed.tags if t == "img"]) == 2
    assert parsed.text.count(NASTY) >= 10
    assert "li<ver" in parsed.text


def test_all_blocks_are_there(page: tuple[str, Page]) -> None:
    _, parsed = page
    names = [tag for tag, _ in parsed.tags]
    assert names.count("section") == 3
    assert names.count("svg") == 1
    assert names.count("details") == 1
    assert names.count("table") == 1
    assert [a["href"] for t, a in parsed.tags if t == "a" and "href" in a] == ["#part-1", "#part-2", "#part-3"]
    assert {a.get("id") for t, a in parsed.tags if t == "section"} == {"part-1", "part-2", "part-3"}
    assert "2026-11-21 10:05" in parsed.text
    assert "not a medical device" in parsed.text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in parsed.tags


def test_pictures_know_their_size_and_have_words(page: tuple[str, Page]) -> None:
    _, parsed = page
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    # 20 x 8 pixels shown 360 wide: 144 high, and 28 for the title.
    assert [(i["width"], i["height"]) for i in images] == [("360", "172")] * 2
    assert images[0]["alt"] == NASTY


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "Title", sections())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.parametrize("data", ["<p>no</p>", b"GIF89a", ""])
def test_only_svg_and_png_are_pictures(data: str | bytes) -> None:
    with pytest.raises(ValueError, match="PNG"):
        Picture(data)
