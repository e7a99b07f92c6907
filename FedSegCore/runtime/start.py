"""Runs something in a runtime with the Python that started this: ``start.py PACKAGES -m MODULE [...]`` or ``-c CODE``.

The packages come first on the path, for this process and those it starts, and what is installed for that Python is left
out: nothing of Slicer's own packages is mixed in. What it runs from is not deleted while it runs.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def use(packages: str) -> None:
    """Put the core beside this file, and ``packages``, on the path."""
    core = str(Path(__file__).resolve().parents[2])
    foreign = {"site-packages", "dist-packages"}
    kept = [entry for entry in sys.path[1:] if not foreign & set(Path(entry).parts)]
    sys.path[:] = [core, packages, *[entry for entry in kept if entry not in (core, packages)]]
    os.environ["PYTHONPATH"] = os.pathsep.join([core, packages])


def main() -> None:
    """Run what the command line says."""
    packages, kind, what, *rest = sys.argv[1:]
    use(packages)
    from FedSegCore.runtime.in_use import hold_own_runtime

    hold_own_runtime()
    if kind == "-m":
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest]
        exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c does
    else:
        sys.exit(f"unknown option {kind}")


if __name__ == "__main__":
    main()
