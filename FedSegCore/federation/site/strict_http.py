"""The HTTP client of a site's connection: it goes nowhere but to the coordinator, and takes no answer of any size.

Flower's client follows redirects, to any host and out of the encryption: a hostile coordinator could let a site call
machines of the hospital's own network. And it reads whatever comes into memory.
"""

from collections.abc import Iterator
from typing import Any

import httpx

MOST_BYTES = 64 * 1024**2
"""Largest answer that is read; Flower cuts what is larger than 5 MB into several."""


class AnswerRefusedError(Exception):
    """An answer is not read; Flower's client does not ask again for it."""


class StrictClient(httpx.Client):
    """An ``httpx.Client`` that follows no redirect, and reads no answer that is compressed or beyond ``MOST_BYTES``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "follow_redirects": False})
        self.headers["accept-encoding"] = "identity"
        self.event_hooks = {"request": [], "response": [_bound]}


def use_strict_client() -> None:
    """Let Flower's clients of this process be strict ones; call it before the first is made."""
    httpx.Client = StrictClient  # type: ignore[misc]


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for chunk in self._stream:
            read += len(chunk)
            if read > MOST_BYTES:
                raise AnswerRefusedError("the answer is too large")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _bound(response: httpx.Response) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AnswerRefusedError("the answer is compressed")
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream)
