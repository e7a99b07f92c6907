"""Which Flower this code fits: a few of its internals are replaced, so another version is refused in words."""

import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.common.quick_start import without_collecting

SUPPORTED = "1.41"
"""The Flower minor version all roles of a federation run."""


def require_flower(replaced: Mapping[str, tuple[str, ...]]) -> tuple[Any, ...]:
    """Import the Flower modules a role changes and check that what it replaces is there.

    Args:
        replaced: module name → attributes this role relies on or replaces.

    Returns:
        The modules, in the order of ``replaced``.

    Raises:
        CannotDoHereError: Flower is missing, of another version, or not built as expected.
    """
    try:
        found = version("flwr")
    except PackageNotFoundError as error:
        raise _refusal("Flower is not installed here.") from error
    if not found.startswith(f"{SUPPORTED}."):
        raise _refusal(f"Flower {found} is installed here, but this version works with {SUPPORTED} only.")
    modules = []
    for name, attributes in replaced.items():
        try:
            # import_module: some Flower packages re-export a function under its module's name
            with without_collecting():
                module = importlib.import_module(name)
        except ImportError as error:
            raise _refusal(f"This Flower has no {name}.") from error
        missing = [attribute for attribute in attributes if not hasattr(module, attribute)]
        if missing:
            raise _refusal(f"This Flower's {name} has no {', '.join(missing)}.")
        modules.append(module)
    return tuple(modules)


def _refusal(what: str) -> CannotDoHereError:
    return CannotDoHereError(
        "flower.version", what, "Repair the runtime: it must hold the Flower version of this release."
    )
