"""Tables of the Federation tab."""

import qt

_MOST = "FedSegMostRows"


def prepareTable(table: object, stretched: int) -> None:
    """Let column ``stretched`` take what room is left, and rows be as high as their words."""
    header = table.horizontalHeader()
    for column in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, mode)
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    table.verticalHeader().connect("sectionResized(int,int,int)", lambda _row, _old, _new: _setHeight(table))


def fillTable(table: object, rows: list[list[str]], tips: list[str] | None = None) -> None:
    """Show these rows."""
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tips[number] if tips else text)
            table.setItem(number, column, item)


def fitTable(table: object, most: int) -> None:
    """Make the table as high as its rows, ``most`` of them at once, also when a narrower column makes them higher."""
    table.setProperty(_MOST, most)
    table.resizeRowsToContents()
    _setHeight(table)


def _setHeight(table: object) -> None:
    most = table.property(_MOST)
    if most is None:
        return
    shown = min(int(most), table.rowCount)
    rows = sum(table.rowHeight(row) for row in range(shown))
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + rows + 2 * table.frameWidth + 2)
