"""A report as one HTML file that needs nothing else: no script, no link to anywhere, pictures inside."""

import base64
import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from FedSegCore import __version__
from FedSegCore.common.files import write_text
from FedSegCore.reporting.sections import Section
from FedSegCore.reporting.tables import table_html


def write_report(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    made: datetime | None = None,
    refresh_s: int | None = None,
) -> None:
    """Write a self-contained page that reads on a phone, on a screen, in the dark and on paper.

    Args:
        path: the file; its folder must exist.
        title: headline.
        sections: the parts, results first.
        lead: two or three sentences under the headline: what this is and what came out.
        made: when the work was done; None leaves it out.
        refresh_s: the browser reads the file again after so many seconds; None: never.
    """
    write_text(path, report_html(title, sections, lead=lead, made=made, refresh_s=refresh_s))


def report_html(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    made: datetime | None = None,
    refresh_s: int | None = None,
) -> str:
    """Return the page that ``write_report`` writes. All texts are escaped; SVG pictures are put in as they are."""
    environment = Environment(
        loader=PackageLoader("FedSegCore.reporting", "."),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(table_html=table_html, picture_html=_picture_html)
    return environment.get_template("report.html").render(
        title=title,
        lead=[part.strip() for part in lead.split("\n\n") if part.strip()],
        sections=sections,
        made=made.strftime("%Y-%m-%d %H:%M") if made is not None else "",
        version=__version__,
        refresh_s=refresh_s,
    )


def _picture_html(data: str | bytes, alternative: str) -> Markup:
    if isinstance(data, bytes):
        width, height = struct.unpack(">II", data[16:24])  # of the PNG's first chunk
        # On a phone a row of pictures would be too small to see anything: it scrolls sideways instead.
        kind = "wide" if width > 2 * height else "whole"
        return Markup(
            '<div class="drawing"><img class="{}" width="{}" height="{}" alt="{}" src="data:image/png;base64,{}"></div>'
        ).format(kind, width, height, alternative, base64.b64encode(data).decode("ascii"))
    return Markup('<div class="drawing" role="img" aria-label="{}">{}</div>').format(
        alternative,
        Markup(data),  # noqa: S704 -- drawn by this package, whose texts Matplotlib escapes
    )
