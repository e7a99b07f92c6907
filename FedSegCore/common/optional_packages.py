"""MONAI imports all packages that it could use; what nothing here uses is hidden from it: processes start sooner."""

import sys

_UNUSED = ("ignite", "matplotlib.pyplot")
"""MONAI's engines and its plots; ignite brings torch.distributed with everything it needs."""


def hide_unused_packages() -> None:
    """Let imports of packages that nothing here uses fail; for the entry of a process of our own, before MONAI.

    A program that uses this code beside others must not call it.
    """
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # so documented: an import of it then fails
