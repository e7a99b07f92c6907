"""TOML files people write: read, checked against a pydantic model, and refused in words."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.validation import problems_of

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model], kind: str) -> Model:
    """Read ``path`` as ``model``. TOML has no null: the string ``"none"`` stands for it anywhere.

    Args:
        path: the file.
        model: the pydantic model it must fit.
        kind: what the file describes and first part of the error codes (``federation.unreadable``).

    Raises:
        BadInputError: missing, not TOML, or not fitting the model; the message names every wrong entry.
    """
    return check_toml(load_toml(path, kind), path, model, kind)


def load_toml(path: Path, kind: str) -> dict[str, Any]:
    """Return what ``path`` says, unchecked; raises BadInputError as ``read_toml`` where it is missing or not TOML."""
    try:
        read: dict[str, Any] = _with_nulls(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInputError(
            f"{kind}.unreadable", f"{path.name} cannot be read: {reason}.", f"Give the {kind}'s TOML file."
        ) from error
    return read


def check_toml(raw: dict[str, Any], path: Path, model: type[Model], kind: str) -> Model:
    """Return what ``path`` said as ``model``; raises BadInputError as ``read_toml`` where it does not fit."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = problems_of(error)
        raise BadInputError(f"{kind}.invalid", f"{path.name}: {problems}.", "Correct the named entries.") from error


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_nulls(entry) for entry in value]
    return None if value == "none" else value
