"""Valid examples, spoilt: bytes flipped, cut, repeated; entries of documents removed, exchanged, nested, blown up.

``FEDSEG_FUZZ_EXAMPLES=2000 pytest Testing/fuzzing`` tries more than the suite does, and other ones every time.
"""

import copy
import json
import os
import re
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import FedSegError

MORE = os.environ.get("FEDSEG_FUZZ_EXAMPLES")

bounded = settings(
    max_examples=int(MORE or 40),
    derandomize=MORE is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""Decorates every fuzz test: the same few examples in the suite, more and others on demand."""

CODE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")

_DEEP = 3000
_ODD = (
    *(None, True, False, 0, 1, -1, 2, 255, 256, 10**6, 2**31, 2**63, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "\0",
        "none",
        "nan",
        "1e999",
        "../../etc/passwd",
        "/",
        "a" * 70_000,
        "\ud800",
        "İ\u202e𝒜",
        "<b>",
        "%s{0}",
    ),
    *([], {}, [[]], [{}], {"": None}, [None], ["a", 1], {"a": {"b": []}}),
)


def coded(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns, or the FedSegError it raises, which must be one that people can act on."""
    try:
        return work()
    except FedSegError as error:
        told = error
    assert CODE.fullmatch(told.code), told.code
    assert told.what.strip()
    assert told.remedy.strip()
    return told


def odd_values() -> st.SearchStrategy[Any]:
    """Draw values that programs stumble over."""
    nested = st.recursive(
        st.sampled_from(_ODD), lambda inner: st.lists(inner, max_size=3) | _named(inner), max_leaves=6
    )
    return st.sampled_from(_ODD) | nested | st.text(max_size=20) | st.integers() | st.floats()


def _named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.text(max_size=6), inner, max_size=3)


@st.composite
def spoilt_document(draw: st.DrawFn, valid: Any) -> Any:
    """Draw ``valid`` (JSON values) with one to three of its entries exchanged, removed, added or doubled."""
    document = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            return draw(odd_values())
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("exchange", "exchange", "remove", "add", "double", "swap"))):
            case "exchange":
                holder[key] = draw(odd_values())
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = draw(odd_values())
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                other, place = places[draw(st.integers(0, len(places) - 1))]
                if not _holds(holder[key], other):
                    other[place] = copy.deepcopy(holder[key])
    return document


def _places(node: Any) -> Any:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        yield node, key
        yield from _places(value)


def _holds(node: Any, other: Any) -> bool:
    return node is other or any(_holds(holder[key], other) for holder, key in _places(node))


@st.composite
def spoilt_json(draw: st.DrawFn, valid: Any) -> bytes:
    """Draw ``valid`` as JSON: spoilt as a document, as bytes, or nested deeper than any parser likes."""
    if draw(st.integers(0, 9)) == 0:
        opening, closing = draw(st.sampled_from((("[", "]"), ('{"a":', "}"))))
        return (opening * _DEEP + "1" + closing * _DEEP).encode()
    if draw(st.booleans()):
        text = json.dumps(draw(spoilt_document(valid)), ensure_ascii=draw(st.booleans()))
        return text.encode("utf-8", errors="surrogatepass")
    return draw(spoilt_bytes(json.dumps(valid).encode()))


@st.composite
def spoilt_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw ``valid`` with bits flipped, a part cut out, doubled or exchanged, or cut off; sometimes any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(("flip", "cut", "end", "double", "exchange"))):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + length]
            case "end":
                del data[at:]
            case "double":
                data[at:at] = data[at : at + length]
            case _:
                data[at : at + length] = draw(st.binary(max_size=length))
    return bytes(data)
