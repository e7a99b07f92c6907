"""Tables that are as high as their rows."""

import qt


def prepareTable(table: object, stretched: int, most: int | None = None) -> None:
    """Let column ``stretched`` take what room is left, and rows be as high as their words; call it once.

    The table stays as high as its rows (see ``fitTable``) when the room for their words changes.
    """
    stretchColumn(table, stretched)
    keepHeight(table)
    table.setTabKeyNavigation(False)  # the Tab key goes on to the next control, arrows go through the rows
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    settled = qt.QTimer(table)  # rows are measured by the new width only after the column has it
    settled.setSingleShot(True)
    settled.connect("timeout()", lambda: fitTable(table, most))
    resized = "sectionResized(int,int,int)"
    table.horizontalHeader().connect(resized, lambda _column, _old, _new: settled.start(0))


def stretchColumn(table: object, stretched: int) -> None:
    """Let column ``stretched`` take what room the others leave."""
    header = table.horizontalHeader()
    for column in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)


def fitColumns(table: object) -> None:
    """Let each column be as wide as its words, the last one also wider; where there is no room, they are scrolled."""
    header = table.horizontalHeader()
    for column in range(table.columnCount):
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
    header.setStretchLastSection(True)


def keepHeight(table: object) -> None:
    """Let the table be as high as it was made, and leave room that is left over to others."""
    table.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)


def fillTable(table: object, rows: list[list[str]], tips: list[str] | None = None) -> None:
    """Show these rows."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tips[number] if tips else text)
            table.setItem(number, column, item)


def fitTable(table: object, most: int | None = None) -> None:
    """Make the table as high as its rows: all of them, or the first ``most``."""
    table.resizeRowsToContents()
    shown = table.rowCount if most is None else min(most, table.rowCount)
    rows = sum(table.rowHeight(row) for row in range(shown))
    bar = table.horizontalScrollBar()
    isScrolled = table.horizontalHeader().length() > table.viewport().width
    room = bar.sizeHint.height() if isScrolled and table.horizontalHeader().stretchLastSection else 0
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + rows + room + 2 * table.frameWidth + 2)
