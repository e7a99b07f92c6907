"""Tabs of which each is as high as it needs to be, and not as high as the highest."""

import qt


class TabHeights:
    """Hides the content of all tabs but the one that is shown.

    Qt asks every tab how high it must be for its wrapped words, whatever its size policy, and gives all of them the
    greatest height; a tab whose content is hidden needs none.

    Args:
        tabWidget: the tabs.
    """

    def __init__(self, tabWidget: object) -> None:
        self._tabs = tabWidget
        self._contents = [_hideable(tabWidget.widget(index)) for index in range(tabWidget.count)]
        tabWidget.connect("currentChanged(int)", self._onTab)
        self._onTab(tabWidget.currentIndex)

    def _onTab(self, shown: int) -> None:
        for index, content in enumerate(self._contents):
            content.setVisible(index == shown)


def _hideable(page: object) -> object:
    """Put what lies in a page into one widget inside of it, and return that."""
    content = qt.QWidget()
    content.setLayout(page.layout())
    around = qt.QVBoxLayout(page)
    around.setContentsMargins(0, 0, 0, 0)
    around.addWidget(content)
    return content
