"""Flower's ArrayRecord ↔ named NumPy arrays, trusting nothing that came over the network.

All tensors of a model travel as one safetensors file in a record with one entry. Flower stores and acknowledges every
entry of a record as an object of its own, in several database transactions: a hundred small tensors cost SuperLink a
hundred times as much as one file of the same size (larger ones Flower cuts into chunks by itself).
"""

import json

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.results import Arrays

ENTRY = "tensors"
"""The record's only entry; a record without tensors is empty."""

_STYPE = "safetensors"
_KINDS = "fiub"
_MAX_NAME = 256
_MAX_TENSORS = 20_000
_HEADER = 8


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return ``arrays`` as a Flower record.

    Raises:
        BadInputError: ``tensors.type`` for arrays other than float, integer or bool.
    """
    if not arrays:
        return ArrayRecord()
    data = safetensors.save({name: _plain(name, array) for name, array in arrays.items()})
    return ArrayRecord({ENTRY: Array("uint8", (len(data),), _STYPE, data)})


def from_record(record: ArrayRecord) -> dict[str, npt.NDArray[np.generic]]:
    """Return a received record as writable arrays.

    Raises:
        BadInputError: ``tensors.*``: other entries than ours, another serialisation than safetensors, too many tensors,
            odd names, types that are not taken, or content that does not fit its header.
    """
    if not record:
        return {}
    data = _data(record)
    if tensor_count(record) > _MAX_TENSORS:
        raise _refusal("too-many", f"{tensor_count(record)} tensors were sent, more than {_MAX_TENSORS}.")
    try:
        read = {name: np.array(array) for name, array in safetensors.load(data).items()}
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a number type that NumPy lacks
        raise _refusal("unreadable", "The tensors are not in the safetensors format.") from error
    for name, array in read.items():
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise _refusal("name", "A tensor has an odd name.")
        _require_kind(name, array)
    return read


def tensor_count(record: ArrayRecord) -> int:
    """Return the number of tensors in a record, by its header; raises BadInputError ``tensors.unreadable``."""
    if not record:
        return 0
    data = _data(record)
    length = int.from_bytes(data[:_HEADER], "little")
    try:
        header = json.loads(data[_HEADER : _HEADER + length]) if length <= len(data) - _HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _refusal("unreadable", "The tensors have no header.")
    return len(header.keys() - {"__metadata__"})


def byte_count(arrays: Arrays) -> int:
    """Return the bytes of all arrays together."""
    return sum(array.nbytes for array in arrays.values())


def _data(record: ArrayRecord) -> bytes:
    if list(record) != [ENTRY] or record[ENTRY].stype != _STYPE:
        raise _refusal("serialisation", "The tensors are serialised in another way than agreed.")
    return bytes(record[ENTRY].data)


def _plain(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    _require_kind(name, array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _require_kind(name: str, array: npt.NDArray[np.generic]) -> None:
    if array.dtype.kind not in _KINDS:
        raise _refusal("type", f"Tensor {name!r} has type {array.dtype}.")


def _refusal(reason: str, what: str) -> BadInputError:
    return BadInputError(f"tensors.{reason}", what, "The sender must be repaired; nothing of this message was used.")
