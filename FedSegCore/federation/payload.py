"""What a message weighs, and a hash over all of it, computed alike by who sends and who receives."""

import hashlib
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from FedSegCore.federation.tensors import tensor_count

Record = TypeVar("Record", ArrayRecord, ConfigRecord)


@dataclass(frozen=True)
class Payload:
    """A message's content in numbers.

    Attributes:
        tensors: how many tensors.
        bytes: of all arrays as they are serialised, and of all other entries.
        sha256: over names, lengths and bytes of all of them.
    """

    tensors: int
    bytes: int
    sha256: str


def records_of(content: RecordDict, kind: type[Record]) -> list[tuple[str, Record]]:
    """Return the records of one kind by name, in order of their names.

    Flower's own ``content.array_records`` refers back to ``content``: every message read through it keeps its tensors
    until Python's garbage collector comes by, and a server would hold many models.
    """
    return [(name, record) for name, record in sorted(content.items()) if isinstance(record, kind)]


def payload_of(content: RecordDict) -> Payload:
    """Return the payload of a message's content; records and their entries in order of their names."""
    parts: list[tuple[str, bytes]] = []
    tensors = 0
    for record, arrays in records_of(content, ArrayRecord):
        tensors += tensor_count(arrays)
        parts += [(f"{record}/{name}", array.data) for name, array in sorted(arrays.items())]
    for record, entries in records_of(content, ConfigRecord):
        parts += [(f"{record}/{name}", str(value).encode("utf-8")) for name, value in sorted(entries.items())]
    digest = hashlib.sha256()
    for name, data in parts:
        digest.update(f"{len(name)} {name} {len(data)} ".encode())
        digest.update(data)
    return Payload(tensors, sum(len(data) for _, data in parts), digest.hexdigest())
