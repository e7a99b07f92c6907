"""Options of a command that make up one checked object."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from FedSegCore.common.errors import UsageError
from FedSegCore.common.validation import problems_of

Model = TypeVar("Model", bound=BaseModel)


def checked_options(model: type[Model], given: Mapping[str, Any]) -> Model:
    """Return ``given`` as ``model``; raises UsageError ``options.invalid`` that names the wrong ones."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        wrong = problems_of(error)
        raise UsageError("options.invalid", f"This is not possible: {wrong}.", "See --help of this command.") from error
