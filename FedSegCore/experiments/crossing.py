"""Settings as points of a grid: parts of settings along axes, and which axes are crossed."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` put in, tables entry by entry."""
    out = dict(base)
    for key, value in changes.items():
        both_tables = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both_tables else value
    return out


def crossed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's raw entries with ``axes`` and ``cross`` replaced by the settings they stand for.

    ``axes.AXIS.POINT`` is a part of a setting; every entry of ``cross`` is a list of axes, whose points are combined
    in all ways: names joined by ``-``, titles by commas, tables merged, later axes last. Settings written out win.

    Raises:
        ValueError: ``cross`` names an axis that there is not, or two combinations have the same name.
    """
    out = dict(raw)
    axes, lists = out.pop("axes", {}), out.pop("cross", ())
    made: dict[str, Any] = {}
    for names in lists:
        if unknown := [name for name in names if name not in axes]:
            raise ValueError(f"cross names the axis {unknown[0]!r}, which there is not")
        for points in product(*(axes[name].items() for name in names)):
            name = "-".join(key for key, _ in points)
            if name in made:
                raise ValueError(f"two combinations of axes make the setting {name!r}")
            made[name] = _combined([part for _, part in points])
    if made:
        out["settings"] = made | out.get("settings", {})
    return out


def _combined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    setting: dict[str, Any] = {}
    for part in parts:
        setting = merged(setting, part)
    return setting | {"title": ", ".join(str(part["title"]) for part in parts if part.get("title"))}
