"""What a report consists of: plain values, without a thought for how they look."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from FedSegCore.reporting.tables import Column, Row
from FedSegCore.volumes.labels import LabelContract


@dataclass(frozen=True)
class Text:
    """Paragraphs in plain words, parted by empty lines."""

    text: str
    kind: str = field(default="text", init=False)

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs without surrounding space."""
        return [part.strip() for part in self.text.split("\n\n") if part.strip()]


@dataclass(frozen=True)
class Fact:
    """One number that matters, large, with what it says.

    Attributes:
        value: as it is read (``"0.91"``, ``"5 sites"``).
        label: what it is.
        note: what to compare it with, or how it was measured.
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    facts: Sequence[Fact]
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be overlooked.

    Attributes:
        text: the sentence.
        good: whether it is good news (a goal reached) or a warning (a goal missed, a limitation).
    """

    text: str
    good: bool = False
    kind: str = field(default="notice", init=False)


@dataclass(frozen=True)
class Picture:
    """An image with a caption.

    Attributes:
        data: SVG text or the bytes of a PNG.
        caption: says what is seen.
        alternative: says it to those who cannot see it; the caption if empty.
    """

    data: str | bytes
    caption: str = ""
    alternative: str = ""
    kind: str = field(default="picture", init=False)

    def __post_init__(self) -> None:
        svg = isinstance(self.data, str) and self.data.startswith("<svg")
        png = isinstance(self.data, bytes) and self.data.startswith(b"\x89PNG\r\n\x1a\n")
        if not (svg or png):
            raise ValueError("a picture is SVG text or the bytes of a PNG")


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    pictures: Sequence[Picture]
    kind: str = field(default="gallery", init=False)


@dataclass(frozen=True)
class Legend:
    """Names and colours of the labels in the pictures that follow."""

    contract: LabelContract
    kind: str = field(default="legend", init=False)


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Details:
    """What only some readers want: folded on screen, printed in full."""

    summary: str
    blocks: "Sequence[Block]"
    kind: str = field(default="details", init=False)


Block = Text | Facts | Notice | Picture | Gallery | Legend | Table | Details


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading, also in the table of contents.
        blocks: what it holds, in order.
    """

    title: str
    blocks: Sequence[Block]
