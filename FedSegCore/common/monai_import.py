"""MONAI imports all packages that it could use; what nothing here uses is hidden from it: processes start sooner."""

import importlib
import sys

from FedSegCore.common.quick_start import without_collecting

_UNUSED = ("ignite", "matplotlib.pyplot", "scipy.signal")
"""MONAI's engines, plots and filters; ignite brings most of torch.distributed with it."""


def import_monai() -> None:
    """Import MONAI as if packages that nothing here asks it for were not installed.

    For the start of a process of our own, before anything else imports MONAI: its engines are not to be had in that
    process. The packages themselves are; does nothing where MONAI is imported already.
    """
    if "monai" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail, as documented
    try:
        with without_collecting():
            importlib.import_module("monai")
    finally:
        for name in hidden:
            del sys.modules[name]
