"""A site's journal in words, one row an entry."""

from collections.abc import Iterable

from rich.table import Table

from FedSegCore.federation.site.journal_entries import Line
from FedSegCore.federation.site.journal_words import entry_words


def journal_table(lines: Iterable[Line]) -> Table:
    """Return a table of ``lines`` for people."""
    table = Table("", "time (UTC)", "what", "details", box=None, pad_edge=False)
    for line in lines:
        what, details = entry_words(line.entry)
        table.add_row(str(line.number), line.time.replace("T", " ").rstrip("Z"), what, details)
    return table
