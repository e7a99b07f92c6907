"""Runs a module's ``main``, imported in one go: ``python -m FedSegCore.common.quick_start MODULE [...]``.

Python's collector goes through all that was imported again and again while more is: a quarter of the start of a
process of Flower. It waits until the imports are done.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MODULE = "FedSegCore.common.quick_start"


@contextmanager
def without_collecting() -> Iterator[None]:
    """Keep Python's garbage collector off, for imports of many modules."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def command(module: str) -> list[str]:
    """Return the command line that runs ``module`` with this Python; its own arguments are to follow.

    Never a script found on PATH, never code of the working folder (``-P``).
    """
    return [sys.executable, "-P", "-m", _MODULE, module]


def main() -> None:
    """Run the module that the command line names."""
    del sys.argv[0]
    with without_collecting():
        module = importlib.import_module(sys.argv[0])
    gc.freeze()  # modules live as long as the process
    module.main()


if __name__ == "__main__":
    main()
