"""What federations, sites and releases may be called: fit for a file name on every system, and for one line of text."""

import re
from typing import Annotated

from pydantic import AfterValidator

# Windows leaves a dot or space at a name's end out, so two names would be one.
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?"
"""Pattern of a name, without anchors; it may still be a device's."""

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?", re.IGNORECASE)


def no_device(name: str) -> str:
    """Return the name; raises ValueError for one that Windows keeps for a device, whatever ending it has."""
    if _DEVICE.fullmatch(name):
        raise ValueError("Windows keeps this name for a device")
    return name


def is_name(text: str) -> bool:
    """Return whether something may be called so."""
    return bool(re.fullmatch(NAME, text)) and not _DEVICE.fullmatch(text)


def _checked(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(
            "use at most 64 letters from A to Z (ä, é or ß are none), digits, spaces, dots, hyphens and underscores, "
            "with a letter or digit first and no space or dot last"
        )
    return no_device(name)


Name = Annotated[str, AfterValidator(_checked)]
