"""Selectors of nodes that can be reached and used with the keyboard."""

from collections.abc import Iterable


def letKeysReach(selectors: Iterable[object]) -> None:
    """Let the Tab key stop at these selectors, and the arrow keys choose in them.

    A qMRMLNodeComboBox hands the keyboard on from the list inside of it to itself, where Tab does not stop and nothing
    listens to keys.
    """
    for selector in selectors:
        for inside in selector.children():
            if inside.inherits("QComboBox"):
                inside.setFocusProxy(None)
                selector.setFocusProxy(inside)
