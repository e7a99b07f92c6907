"""Tables of the Federation tab."""

import qt


def prepareTable(table: object, stretched: int) -> None:
    """Let column ``stretched`` take what room is left, and rows be as high as their words."""
    header = table.horizontalHeader()
    for column in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)


def fillTable(table: object, rows: list[list[str]], tips: list[str] | None = None) -> None:
    """Show these rows."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tips[number] if tips else text)
            table.setItem(number, column, item)


def fitTable(table: object, most: int) -> None:
    """Make the table as high as its rows, ``most`` of them at once."""
    table.resizeRowsToContents()
    shown = min(most, table.rowCount)
    rows = sum(table.rowHeight(row) for row in range(shown))
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + rows + 2 * table.frameWidth + 2)
