"""Models and updates with fewer bits, and back.

A site sends of each kernel (floating-point, two axes or more) its change to the received one, as ``<name>:codes``
(float16, int8 or float32) times one scale, of all values or, with ``<name>:mask`` (one bit a value), of the largest.
All other tensors travel as they are, unchanged ones not at all. Codes are rounded towards zero, so what leaves is never
longer than what the site's gate has measured.

The server adds changes to its own float32 model, also where the sites were sent it in half precision: were they added
to the rounded one, changes smaller than half a unit in the last place of float16 would be lost for ever.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.results import Arrays

SCALES = ":scales"
"""The scales of all coded tensors, float32, in order of their names."""

_CODES = ":codes"
_MASK = ":mask"
_CODE_TYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.int8))
_INT8_MOST = 127
_FLOAT16_MOST = 65504.0

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


def is_kernel(array: Array) -> bool:
    """Return whether a tensor is shortened: floating-point of at least two axes."""
    return array.dtype.kind == "f" and array.ndim >= 2


def lowered(model: Arrays, exchange: ExchangeConfig) -> Arrays:
    """Return ``model`` as it is sent to sites; kernels beyond float16's range stay as they are."""
    if exchange.downlink == "float32":
        return model
    return {name: _halved(array) for name, array in model.items()}


def raised(model: Arrays) -> dict[str, Array]:
    """Return a received model with float32 where ``lowered`` made float16."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float16 else np.asarray(array)
        for name, array in model.items()
    }


def difference(array: Numbers, before: Numbers) -> FloatArray:
    """Return ``array`` − ``before`` in float32."""
    return np.asarray(array - before, np.float32)


def encode(tensors: Arrays, received: Arrays, exchange: ExchangeConfig) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return what travels of ``tensors``, and the names of those that are as they were received and do not travel.

    Args:
        tensors: finite.
        received: what they were; tensors that are not in it (a rule's extra ones) were zero and always travel.
        exchange: which form.
    """
    sent: dict[str, Array] = {}
    unchanged: list[str] = []
    scales: dict[str, np.float32] = {}
    for name, array in tensors.items():
        before = received.get(name)
        if before is not None and np.array_equal(array, before):
            unchanged.append(name)
        elif exchange.exact or not is_kernel(array):
            sent[name] = np.asarray(array)
        else:
            change = array.astype(np.float32) if before is None else difference(array, before)
            parts, scales[name] = _codes(change, exchange)
            sent |= {name + part: codes for part, codes in parts.items()}
    if scales:
        sent[SCALES] = np.array([scales[name] for name in sorted(scales)], np.float32)
    return sent, tuple(unchanged)


class Decoded(Mapping[str, Array]):
    """What ``encode`` wrote, each tensor put together when asked for, so that a server holds no second copy.

    A tensor that is asked for may raise BadInputError ``reply.encoding``.

    Args:
        sent: tensors as they came.
        base: the model that changes are added to, full precision; extra tensors have the shape and type of the tensor
            of the model after their ``/``, and zero as base.
        unchanged: tensors of ``base`` that did not travel.

    Raises:
        BadInputError: ``reply.encoding``: scales that do not fit, codes of no known tensor.
    """

    def __init__(self, sent: Arrays, base: Arrays, unchanged: tuple[str, ...] = ()) -> None:
        coded = sorted(name.removesuffix(_CODES) for name in sent if name.endswith(_CODES))
        scales = sent.get(SCALES, np.zeros(0, np.float32))
        if scales.dtype != np.float32 or scales.shape != (len(coded),) or not np.isfinite(scales).all():
            raise _refusal("the scales do not fit")
        self._scales = dict(zip(coded, scales.tolist(), strict=True))
        self._sent = sent
        self._base = base
        self._unchanged = frozenset(unchanged)
        plain = [name for name in sent if not name.endswith((_CODES, _MASK)) and name != SCALES]
        names = [*plain, *coded, *unchanged]
        if len(set(names)) != len(names) or not self._unchanged <= base.keys():
            raise _refusal("a tensor came twice or is not known")
        if any(_like(name) not in base for name in coded):
            raise _refusal("there are codes of no known tensor")
        self._names = tuple(sorted(names))

    def __getitem__(self, name: str) -> Array:
        if name in self._scales:
            return self._put_together(name)
        if name in self._unchanged:
            return np.asarray(self._base[name])
        # a copy: a view would keep the whole message in memory for as long as somebody keeps one counter
        return np.array(self._sent[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _put_together(self, name: str) -> Array:
        like: Numbers = np.asarray(self._base[_like(name)])
        change = self._change(name, like)
        if name in self._base:
            change += like
        return change.astype(like.dtype, copy=False)

    def _change(self, name: str, like: Array) -> FloatArray:
        codes: Numbers = np.asarray(self._sent[name + _CODES])
        mask: Numbers | None = self._sent.get(name + _MASK)
        if codes.dtype not in _CODE_TYPES or like.dtype.kind != "f":
            raise _refusal(f"the codes of {name!r} have type {codes.dtype}")
        if mask is None:
            if codes.shape != like.shape:
                raise _refusal(f"the codes of {name!r} have shape {codes.shape}")
            return codes * np.float32(self._scales[name])
        if mask.dtype != np.uint8 or mask.shape != (ceil(like.size / 8),) or codes.ndim != 1:
            raise _refusal(f"the mask of {name!r} does not fit")
        chosen = np.unpackbits(mask, count=like.size).astype(bool)
        if int(chosen.sum()) != codes.size:
            raise _refusal(f"the mask of {name!r} does not fit")
        change = np.zeros(like.size, np.float32)
        change[chosen] = codes * np.float32(self._scales[name])
        return change.reshape(like.shape)


def _codes(change: FloatArray, exchange: ExchangeConfig) -> tuple[dict[str, Array], np.float32]:
    flat = change.reshape(-1)
    parts: dict[str, Array] = {}
    values = change
    if exchange.top_k is not None:
        chosen = np.zeros(flat.size, bool)
        count = ceil(exchange.top_k * flat.size)
        chosen[np.argpartition(np.abs(flat), flat.size - count)[flat.size - count :]] = True
        parts[_MASK] = np.packbits(chosen)
        values = flat[chosen]
    largest = float(np.abs(values).max(initial=0.0))
    if exchange.precision == "float32" or largest == 0.0:
        dtype = {"float32": np.float32, "float16": np.float16, "int8": np.int8}[exchange.precision]
        return {**parts, _CODES: values.astype(dtype)}, np.float32(1.0)
    if exchange.precision == "int8":
        scale = np.float32(largest / _INT8_MOST)
        return {**parts, _CODES: np.trunc(values / scale).clip(-_INT8_MOST, _INT8_MOST).astype(np.int8)}, scale
    # a power of two, so that scaling rounds nothing: the largest change lies in [1, 2)
    scale = np.float32(2.0 ** np.floor(np.log2(largest)))
    return {**parts, _CODES: _half_towards_zero(values / scale)}, scale


def _half_towards_zero(values: FloatArray) -> npt.NDArray[np.float16]:
    codes = values.astype(np.float16)
    return np.where(np.abs(codes) > np.abs(values), np.nextafter(codes, np.float16(0.0)), codes)


def _halved(array: Array) -> Array:
    inside = is_kernel(array) and float(np.abs(array).max(initial=0.0)) <= _FLOAT16_MOST
    return array.astype(np.float16) if inside else array


def _like(name: str) -> str:
    return name.partition("/")[2] or name


def _refusal(what: str) -> BadInputError:
    return BadInputError("reply.encoding", f"The update cannot be put together: {what}.", "Update the sender.")
