"""Small signed JSON files that people hand to each other: readable as text, and proof of who wrote them.

``{"format": "fedseg-<kind>-<version>", "<kind>": {...}, "signature": "<hex>"}``. The signature is over the format's
name, a zero byte and the object as canonical JSON, so spaces and line ends may change on the way and nothing else.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from FedSegCore.common.files import write_text

MAX_BYTES = 256 * 1024
"""No such file is larger; a larger one is not read."""

Fault = Literal["unreadable", "too-large", "no-json", "foreign-format", "tampered"]


class SignedFileError(Exception):
    """Why a file is not what it should be; every kind of file says it in its own words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


@dataclass(frozen=True)
class SignedFormat:
    """One kind of signed file.

    Attributes:
        kind: what it holds, in lower case letters and hyphens; also the name of the object in it.
        version: of its schema; a reader refuses every other one.
    """

    kind: str
    version: int

    def text(self, content: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
        """Return ``content`` (JSON values) as a signed file; ``sign`` makes the signature of a message."""
        signature = sign(self._message(content)).hex()
        whole = {"format": self._name, self.kind: content, "signature": signature}
        return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(
        self, path: Path, content: dict[str, Any], sign: Callable[[bytes], bytes], *, private: bool = False
    ) -> None:
        """Write the signed file whole; ``private``: readable by its owner only."""
        write_text(path, self.text(content, sign), private=private)

    def parse(self, data: bytes, is_good: Callable[[dict[str, Any], bytes, bytes], bool]) -> dict[str, Any]:
        """Return the object in a file's bytes.

        Args:
            data: the file.
            is_good: told the object, the signature and the message; returns whether the signature is right by the key
                that the object itself names, so it must check the type of what it takes from there.

        Raises:
            SignedFileError: anything else than a file of this format with a good signature.
        """
        whole = _parsed(data)
        name = whole.get("format")
        if name != self._name:
            foreign = isinstance(name, str) and name.startswith(f"fedseg-{self.kind}-")
            raise SignedFileError("foreign-format" if foreign else "no-json")
        content, signature = whole.get(self.kind), whole.get("signature")
        if set(whole) != {"format", self.kind, "signature"} or not isinstance(content, dict):
            raise SignedFileError("tampered")
        try:
            good = is_good(content, bytes.fromhex(str(signature)), self._message(content))
        except (ValueError, RecursionError) as error:
            raise SignedFileError("tampered") from error
        if not good:
            raise SignedFileError("tampered")
        return content

    @property
    def _name(self) -> str:
        return f"fedseg-{self.kind}-{self.version}"

    def _message(self, content: dict[str, Any]) -> bytes:
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{self._name}\0{canonical}".encode("ascii")


def read_bytes(path: Path) -> bytes:
    """Return a signed file's bytes; raises SignedFileError ``unreadable`` or ``too-large``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SignedFileError("unreadable") from error
    if len(data) > MAX_BYTES:
        raise SignedFileError("too-large")
    return data


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise SignedFileError("too-large")
    try:
        # mail programs on Windows may put a byte order mark before the text
        whole = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SignedFileError("no-json") from error
    if not isinstance(whole, dict):
        raise SignedFileError("no-json")
    return whole


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; a person would read the first of two equal names, a program the last."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is repeated")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
