"""Federations that come with the package: each paper's protocol, and a quick variant of it for two cores."""

from pathlib import Path

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.config import FederationConfig, read_federation_config


def preset_names() -> tuple[str, ...]:
    """Return the names ``preset_path`` knows, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.toml")))


def preset_path(name: str) -> Path:
    """Return a preset's TOML file, to be read or copied and changed.

    Raises:
        BadInputError: ``federation.preset-unknown``.
    """
    if name not in preset_names():
        raise BadInputError(
            "federation.preset-unknown",
            f"There is no preset called {name!r}.",
            f"Choose one of {', '.join(preset_names())}.",
        )
    return Path(__file__).parent / f"{name}.toml"


def read_preset(name: str) -> FederationConfig:
    """Return a preset; raises BadInputError as ``preset_path``."""
    return read_federation_config(preset_path(name))
