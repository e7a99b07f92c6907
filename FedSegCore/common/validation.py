"""What pydantic found wrong, in one line for people."""

from collections.abc import Callable

from pydantic import ValidationError

Location = tuple[int | str, ...]


def place_of(location: Location) -> str:
    """Return where a wrong entry stands (``"contract.labels.0.name"``)."""
    return ".".join(map(str, location)) or "as a whole"


def problems_of(error: ValidationError, most: int | None = None, place: Callable[[Location], str] = place_of) -> str:
    """Return place and message of the first ``most`` wrong entries, by default of all."""
    return "; ".join(f"{place(entry['loc'])}: {_words(entry['msg'])}" for entry in error.errors()[:most])


def _words(message: str) -> str:
    """Return a message without what pydantic puts before the words of our own checks."""
    return message.removeprefix("Value error, ")


def places_of(error: ValidationError, most: int) -> str:
    """Return the first ``most`` places only: messages may repeat what others sent."""
    return ", ".join(sorted({place_of(entry["loc"]) for entry in error.errors()})[:most])
