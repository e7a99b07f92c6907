"""Flower's ``pull_objects`` with a bound: of a message that is too large no more is pulled, on either side."""

import threading
from collections.abc import Callable
from typing import Any

Pull = Callable[..., dict[str, bytes]]

SLACK_BYTES = 16 * 1024**2
"""What a message may weigh beside its tensors."""


class PulledTooMuchError(MemoryError):
    """A message was given up half-way.

    Attributes:
        pulled: bytes that had come by then.
        allowed: bytes that were allowed.
    """

    def __init__(self, pulled: int, allowed: int) -> None:
        super().__init__("the message is larger than is allowed")
        self.pulled = pulled
        self.allowed = allowed


def bounded_pull(pull_objects: Pull, allowed_bytes: Callable[[], int]) -> Pull:
    """Return ``pull_objects`` for messages of at most ``allowed_bytes()``; raises PulledTooMuchError for others."""

    def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes], **options: Any) -> dict[str, bytes]:
        allowed = allowed_bytes()
        pulled = 0
        counting = threading.Lock()

        def pull_one(object_id: str) -> bytes:
            nonlocal pulled
            content = pull_object_fn(object_id)
            with counting:
                pulled += len(content)
            if pulled > allowed:
                raise PulledTooMuchError(pulled, allowed)
            return content

        return pull_objects(object_ids, pull_object_fn=pull_one, **options)

    return pull
