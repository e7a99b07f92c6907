"""Runs a module and ends with whoever started it: ``attended.py MODULE [...]``, its standard input held open.

A killed parent closes the pipe, on every system and through Slicer's launcher, so no pip is left behind.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

GONE = 130


def end_with_parent() -> None:
    """Leave at once when standard input ends. Not through ``sys.stdin``, whose lock would hold up the exit."""
    while os.read(0, 1024):
        pass
    os._exit(GONE)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    del sys.path[0]  # this file's folder
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
