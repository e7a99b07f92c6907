"""Messages of an in-process grid that wait to be taken: what many of them share is kept once, and in files.

So a round's memory does not grow with the number of sites, not even where each of them gets a model of its own. On a
real grid, SuperLink's database does the same.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from threading import Lock

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

_SMALL = 16_384


class MessageSpool:
    """Messages taken apart into Flower's content-addressed objects, as the wire does.

    Args:
        folder: where objects lie; **its content is deleted** when the first comes. None: in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._objects: MutableMapping[str, bytes] = {} if folder is None else _ObjectFiles(folder)
        self._uses: Counter[str] = Counter()
        self._parts: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._lock = Lock()

    def put(self, message: Message) -> None:
        """Keep ``message`` under its id."""
        with self._lock, no_object_id_recompute():
            parts = get_all_nested_objects(message)
            for key, part in parts.items():
                if not self._uses[key]:
                    self._objects[key] = part.deflate()
            self._uses.update(parts.keys())
            self._parts[message.metadata.message_id] = (message.object_id, tuple(parts))

    def take(self, message_id: str) -> Message:
        """Return a message put together again, and keep it no longer; raises KeyError for an unknown one."""
        with self._lock:
            object_id, keys = self._parts.pop(message_id)
            contents = {key: self._objects[key] for key in keys}
            for key in keys:
                self._uses[key] -= 1
                if not self._uses[key]:
                    del self._uses[key], self._objects[key]
        arrived: Message = inflate_object_from_contents(object_id, contents)
        arrived.metadata.__dict__["_message_id"] = message_id
        return arrived

    def drop(self, message_id: str) -> None:
        """Keep a message no longer that nobody will take."""
        self.take(message_id)

    def close(self) -> None:
        """Forget all messages."""
        if isinstance(self._objects, _ObjectFiles):
            self._objects.remove()
        self._objects, self._uses, self._parts = {}, Counter(), {}


class _ObjectFiles(MutableMapping[str, bytes]):
    """Objects by their ids, all but small ones in files of a folder.

    The folder is left alone until something is put there: it may belong to a process that is still at work, which
    whoever sends messages has then made sure of.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._small: dict[str, bytes] = {}
        self._begun = False

    def remove(self) -> None:
        if self._begun:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __setitem__(self, key: str, content: bytes) -> None:
        if not self._begun:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._begun = True
        if len(content) < _SMALL:
            self._small[key] = content
        else:
            (self._folder / key).write_bytes(content)

    def __getitem__(self, key: str) -> bytes:
        return self._small[key] if key in self._small else (self._folder / key).read_bytes()

    def __delitem__(self, key: str) -> None:
        if key in self._small:
            del self._small[key]
        else:
            (self._folder / key).unlink()

    def __iter__(self) -> Iterator[str]:
        yield from self._small
        if self._begun:
            yield from (path.name for path in self._folder.iterdir())

    def __len__(self) -> int:
        return sum(1 for _ in self)
