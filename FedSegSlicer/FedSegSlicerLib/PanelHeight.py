"""The room that Slicer's panel gives the module: as high as the module is now, and not as it once was."""

from collections.abc import Callable

import qt

OTHER_WIDTHS = (11, 12, 13)
"""Qt remembers the heights of a widget for three widths; asked for three others it forgets those."""


class PanelHeight:
    """Has Slicer's panel ask anew for the module's height whenever something in it was laid out anew.

    When another module is chosen, Slicer takes the module's widget out of its panel and loses what Qt remembers of it.
    Once the module is chosen again, Qt forgets heights in what was lost, and not in what the panel uses since: it would
    stay as high as it once was, with nothing but an empty page in view.

    Args:
        content: what the module shows.
        moduleWidget: what Slicer puts into its panel; ``content`` lies in it.
    """

    def __init__(self, content: object, moduleWidget: object) -> None:
        self._content, self._moduleWidget = content, moduleWidget
        self._settled = qt.QTimer(content)  # the layouts around tell each other one after the other
        self._settled.setSingleShot(True)
        self._settled.connect("timeout()", self._forgetHeights)
        self._filter = _makeFilter(lambda: self._settled.start(0))
        content.installEventFilter(self._filter)

    def cleanup(self) -> None:
        """Look no more."""
        self._content.removeEventFilter(self._filter)
        self._settled.stop()

    def _forgetHeights(self) -> None:
        panel = self._moduleWidget.parent()
        layout = panel.layout() if panel is not None else None
        place = layout.indexOf(self._moduleWidget) if layout is not None else -1
        if place >= 0:
            item = layout.itemAt(place)
            for width in OTHER_WIDTHS:
                item.heightForWidth(width)
            layout.invalidate()


def _makeFilter(onLaidOut: Callable[[], None]) -> object:
    """Return an object that tells of every new layout; a class of Qt's cannot be made before there is a desktop."""

    class Filter(qt.QObject):
        def eventFilter(self, _watched: object, event: object) -> bool:
            if event.type() == qt.QEvent.LayoutRequest:
                onLaidOut()
            return False

    return Filter()
