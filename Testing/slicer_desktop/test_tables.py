"""Tables that are as high as their rows, however wide the panel is."""

import pytest
import qt
import slicer
from FedSegSlicerLib.Tables import fillTable, fitTable, prepareTable
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
