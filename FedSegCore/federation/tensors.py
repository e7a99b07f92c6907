"""Flower's ArrayRecord ↔ named NumPy arrays, trusting nothing that came over the network.

Flower serialises an array as an ``.npy`` file without pickle. Reading goes through NumPy's ``.npy`` reader with pickle
refused, and the header is compared with the bytes before anything is allocated.
"""

import io
import math

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.results import Arrays

_STYPE = "numpy.ndarray"
_KINDS = "fiub"
_MAX_NAME = 256
_MAX_TENSORS = 20_000


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return ``arrays`` as a Flower record; contiguous copies, names kept.

    Raises:
        BadInputError: ``tensors.type`` for arrays other than float, integer or bool.
    """
    return ArrayRecord({name: Array(_plain(name, array)) for name, array in arrays.items()})


def from_record(record: ArrayRecord) -> dict[str, npt.NDArray[np.generic]]:
    """Return a received record as writable arrays.

    Raises:
        BadInputError: ``tensors.*``: too many tensors, odd names, another serialisation than ``.npy``, pickled or
            non-numeric content, or a header that does not fit its bytes.
    """
    if len(record) > _MAX_TENSORS:
        raise _refusal("too-many", f"{len(record)} tensors were sent, more than {_MAX_TENSORS}.")
    return {name: _read(name, array) for name, array in record.items()}


def byte_count(arrays: Arrays) -> int:
    """Return the bytes of all arrays together."""
    return sum(array.nbytes for array in arrays.values())


def _plain(name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype.kind not in _KINDS:
        raise _refusal("type", f"Tensor {name!r} has type {array.dtype}.")
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _read(name: str, array: Array) -> npt.NDArray[np.generic]:
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise _refusal("name", "A tensor has an odd name.")
    if array.stype != _STYPE:
        raise _refusal("serialisation", f"Tensor {name!r} is serialised in another way than .npy.")
    stream = io.BytesIO(array.data)
    try:
        shape, dtype = _header(stream)
        if dtype.kind not in _KINDS or not dtype.isnative:
            raise _refusal("type", f"Tensor {name!r} has a type that is not taken.")
        if math.prod(shape) * dtype.itemsize != len(array.data) - stream.tell():
            raise _refusal("size", f"Tensor {name!r} does not have the bytes its header promises.")
        stream.seek(0)
        read: npt.NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise _refusal("unreadable", f"Tensor {name!r} cannot be read.") from error
    return read


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], "np.dtype[np.generic]"]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError("only .npy version 1.0 is taken")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


def _refusal(reason: str, what: str) -> BadInputError:
    return BadInputError(f"tensors.{reason}", what, "The sender must be repaired; nothing of this message was used.")
