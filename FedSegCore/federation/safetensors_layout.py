"""Where tensors lie in a safetensors file: for readers that must not copy, and a writer that never holds a whole model.

The safetensors library reads and writes whole files from memory; a server that folds one update after another has no
room for two more models.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from operator import index
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

LENGTH = 8
"""Bytes that give the length of the header, little-endian."""

MOST_HEADER = 16 * 1024 * 1024
"""Longest header that is read: as JSON it takes many times its size of memory."""

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
_REMARKS = "__metadata__"
_ROOM = 160
"""Bytes of a header's entry beside its name, and more: eight axes and offsets of fifteen digits."""


@dataclass(frozen=True)
class Place:
    """One tensor: type (little-endian), shape, and where its bytes begin and end behind the header."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(text: bytes) -> dict[str, Any]:
    """Return a header's entries, less its remarks; raises ValueError for anything but a JSON object."""
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("the header is too deep") from error
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    return {name: entry for name, entry in header.items() if name != _REMARKS}


def places(header: dict[str, Any], length: int) -> dict[str, Place]:
    """Return where the tensors of a header lie in ``length`` bytes, in order.

    Raises:
        ValueError: an entry that is not one, a type NumPy lacks, or tensors that do not fill the bytes end to end.
    """
    found: dict[str, Place] = {}
    last = 0
    try:
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = map(index, entry["data_offsets"])
            place = Place(np.dtype(_TYPES[entry["dtype"]]), tuple(map(index, entry["shape"])), begin, end)
            if (
                begin != last
                or min(place.shape, default=0) < 0
                or end - begin != prod(place.shape) * place.dtype.itemsize
            ):
                raise ValueError(f"{name!r} does not lie where it should")
            found[name] = place
            last = end
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("an entry of the header is not one") from error
    if last != length:
        raise ValueError("there are more bytes than tensors")
    return found


def read_places(file: BinaryIO) -> tuple[dict[str, Place], int]:
    """Return a file's tensors and where the bytes behind its header begin; raises ValueError, OSError."""
    length = int.from_bytes(file.read(LENGTH), "little")
    if not 0 < length <= MOST_HEADER:
        raise ValueError("the header's length is impossible")
    header = read_header(file.read(length))
    return places(header, file.seek(0, 2) - LENGTH - length), LENGTH + length


def write_tensors(file: BinaryIO, names: Iterable[str], tensor_of: Callable[[str], npt.NDArray[np.generic]]) -> None:
    """Write a file, asking for each tensor once and holding one at a time.

    Room for the header is left before the tensors, and what is too much of it is filled with spaces, as the format
    allows: types and shapes are known only once the tensors are.
    """
    listed = list(names)
    room = sum(len(json.dumps(name)) + _ROOM for name in listed) + LENGTH
    room += -room % LENGTH
    header: dict[str, Any] = {}
    end = 0
    file.write(bytes(LENGTH + room))
    for name in listed:
        array = np.asarray(tensor_of(name), order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
        file.write(array.data if array.size else b"")
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    file.seek(0)
    file.write(room.to_bytes(LENGTH, "little") + text.ljust(room))
