"""Tables that are as high as their rows, however wide the panel is."""

import pytest
import qt
import slicer
from FedSegSlicerLib.Tables import fillTable, fitColumns, fitTable, prepareTable
from scene_helpers import wait_until

pytestmark = pytest.mark.slicer

WORDS = "words that need several lines where there is little room for them"


def rows_of(table, most: int) -> int:
    return sum(table.rowHeight(row) for row in range(most))


@pytest.mark.parametrize("most", [None, 2])
def test_a_narrower_table_grows_with_its_rows(most):
    table = qt.QTableWidget(3, 2)
    prepareTable(table, 1, most)
    table.resize(900, 400)
    table.show()
    fillTable(table, [["what", WORDS]] * 3)
    fitTable(table, most)
    slicer.app.processEvents()
    wide, shown = table.height, most or 3
    room = wide - rows_of(table, shown)
    table.resize(220, table.height)
    wait_until(lambda: table.height > wide)
    assert table.height == rows_of(table, shown) + room
    table.deleteLater()


def test_columns_of_numbers_are_as_wide_as_their_words_and_scrolled_where_there_is_no_room():
    table = qt.QTableWidget(2, 1)
    prepareTable(table, 0, 2)
    table.resize(300, 400)
    table.show()
    heads = ["Round", *(f"Dice\nstructure {number}" for number in range(8))]
    table.setColumnCount(len(heads))
    table.setHorizontalHeaderLabels(heads)
    fitColumns(table)
    fillTable(table, [["10 of 12", *["0.123"] * 8]] * 2)
    fitTable(table, 2)
    slicer.app.processEvents()
    for column in range(table.columnCount):
        assert table.columnWidth(column) >= table.sizeHintForColumn(column)
    bar = table.horizontalScrollBar()
    assert bar.maximum > 0
    assert table.viewport().height >= rows_of(table, 2)  # the bar lies below the rows
    table.resize(2000, table.height)
    wait_until(lambda: bar.maximum == 0)
    table.deleteLater()
