"""Flower's ArrayRecord ↔ named NumPy arrays, trusting nothing that came over the network.

All tensors of a model travel as one safetensors file in a record with one entry. Flower stores and acknowledges every
entry of a record as an object of its own, in several database transactions: a hundred small tensors cost SuperLink a
hundred times as much as one file of the same size (larger ones Flower cuts into chunks by itself).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from safetensors import numpy as safetensors

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.safetensors_layout import LENGTH, MOST_HEADER, places, read_header
from FedSegCore.learning.results import Arrays

ENTRY = "tensors"
"""The record's only entry; a record without tensors is empty."""

_STYPE = "safetensors"
_KINDS = "fiub"
_MAX_NAME = 256
_MAX_TENSORS = 20_000


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return ``arrays`` as a Flower record.

    Raises:
        BadInputError: ``tensors.type`` for arrays other than float, integer or bool.
    """
    if not arrays:
        return ArrayRecord()
    data = safetensors.save({name: _plain(name, array) for name, array in arrays.items()})
    return ArrayRecord({ENTRY: Array("uint8", (len(data),), _STYPE, data)})


def from_record(record: ArrayRecord, *, copy: bool = True) -> dict[str, npt.NDArray[np.generic]]:
    """Return a received record's arrays.

    Args:
        record: as it came.
        copy: writable copies; else read-only views of the record, which take no memory of their own.

    Raises:
        BadInputError: ``tensors.*``: other entries than ours, another serialisation than safetensors, too many tensors,
            odd names, types that are not taken, or content that does not fit its header.
    """
    if not record:
        return {}
    header, body = _parts(record)
    if len(header) > _MAX_TENSORS:
        raise _refusal("too-many", f"{len(header)} tensors were sent, more than {_MAX_TENSORS}.")
    try:
        read = _views(header, body)
    except ValueError as error:
        raise _refusal("unreadable", "The tensors are not in the safetensors format.") from error
    if any(not 0 < len(name) <= _MAX_NAME or not name.isprintable() for name in read):
        raise _refusal("name", "A tensor has an odd name.")
    return {name: array.copy() for name, array in read.items()} if copy else read


def tensor_count(record: ArrayRecord) -> int:
    """Return the number of tensors in a record, by its header; raises BadInputError ``tensors.unreadable``."""
    return len(_parts(record)[0]) if record else 0


def tensor_bytes(record: ArrayRecord) -> int:
    """Return the bytes of a record's tensors without their header; raises BadInputError ``tensors.unreadable``."""
    return len(_parts(record)[1]) if record else 0


def byte_count(arrays: Arrays) -> int:
    """Return the bytes of all arrays together."""
    return sum(array.nbytes for array in arrays.values())


def _parts(record: ArrayRecord) -> tuple[dict[str, Any], memoryview]:
    """Return a safetensors file's header, less its remarks, and the numbers after it."""
    if list(record) != [ENTRY] or record[ENTRY].stype != _STYPE:
        raise _refusal("serialisation", "The tensors are serialised in another way than agreed.")
    data = memoryview(record[ENTRY].data)
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    try:
        fits = LENGTH < end <= min(len(data), LENGTH + MOST_HEADER)
        header = read_header(bytes(data[LENGTH:end])) if fits else None
    except ValueError:
        header = None
    if header is None:
        raise _refusal("unreadable", "The tensors have no header.")
    return header, data[end:]


def _views(header: dict[str, Any], body: memoryview) -> dict[str, npt.NDArray[np.generic]]:
    """Return read-only views of ``body``; raises ValueError where header and body do not fit."""
    found = places(header, len(body)).items()
    views = {name: np.ndarray(place.shape, place.dtype, body[place.begin : place.end]) for name, place in found}
    for view in views.values():
        view.flags.writeable = False
    return views


def _plain(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    _require_kind(name, array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _require_kind(name: str, array: npt.NDArray[np.generic]) -> None:
    if array.dtype.kind not in _KINDS:
        raise _refusal("type", f"Tensor {name!r} has type {array.dtype}.")


def _refusal(reason: str, what: str) -> BadInputError:
    return BadInputError(f"tensors.{reason}", what, "The sender must be repaired; nothing of this message was used.")
