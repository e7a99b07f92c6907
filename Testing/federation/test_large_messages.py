"""A model larger than one request: Flower cuts it into objects, and a push that broke off goes on with what is missing.

Only Flower's own code is at work here, with SuperLink's own store: nothing of this needs to be built, and the test says
so should another Flower version change it.
"""

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, push_objects
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from numpy.testing import assert_array_equal

from FedSegCore.federation.local_grid import LocalGrid
from FedSegCore.federation.message_spool import MessageSpool
from FedSegCore.federation.payload import records_of
from FedSegCore.federation.tensors import from_record, to_record

RUN = 7
ONE_OBJECT = 5 * 1024 * 1024
GRPC_MESSAGE = 4 * 1024 * 1024


@pytest.fixture
def model():
    return {"w": np.random.default_rng(0).integers(0, 2**32, (3, 1024, 1024), np.uint32).view(np.int32)}


def message_of(model) -> Message:
    LocalGrid({})  # Flower needs to know whose process this is
    message = Message(RecordDict({"model": to_record(model)}), 2, MessageType.TRAIN)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


@pytest.fixture
def store(tmp_path):
    store = SqlObjectStore(str(tmp_path / "superlink.db"))
    store.initialize()
    return store


class Line:
    """Carries objects to SuperLink's store, and breaks after some."""

    def __init__(self, store, breaks_after: int | None = None) -> None:
        self.store = store
        self.sizes: list[int] = []
        self.breaks_after = breaks_after

    def push(self, object_id: str, content: bytes) -> None:
        if len(self.sizes) == self.breaks_after:
            raise ConnectionError
        self.store.put(object_id, content)
        self.sizes.append(len(content))

    def carry(self, message: Message) -> int:
        """Push what is missing of ``message``; returns how many objects that was to be."""
        missing = self.store.preregister(RUN, get_object_tree(message))
        objects = get_all_nested_objects(message)
        push_objects(objects, self.push, object_ids_to_push=set(missing), max_concurrent_pushes=1)
        return len(missing)


def test_a_model_larger_than_a_message_travels_in_pieces_and_arrives(store, model):
    message = message_of(model)
    line = Line(store)
    line.carry(message)
    assert sum(line.sizes) > 12 * 1024**2 > GRPC_MESSAGE
    # 12 MiB and a header: three chunks, the array, its record, the content, the message
    assert len(line.sizes) == 7
    assert max(line.sizes) < ONE_OBJECT + 1024
    contents = {tree: store.get(tree) for tree in get_all_nested_objects(message)}
    arrived = inflate_object_from_contents(message.object_id, contents)
    assert_array_equal(from_record(arrived.content["model"])["w"], model["w"])


def test_a_push_that_broke_off_goes_on_with_the_missing_objects_also_in_a_new_message(store, model):
    first = message_of(model)
    with pytest.raises(ConnectionError):
        Line(store, breaks_after=2).carry(first)
    again = Line(store)
    # as SteadyGrid does: the same content in a new message
    assert again.carry(message_of(model)) == 5
    assert sum(again.sizes) < 2.1 * 1024**2
    assert Line(store).carry(message_of(model)) <= 1


def test_a_spool_keeps_what_messages_share_once_and_forgets_what_was_taken(tmp_path, model):
    LocalGrid({})
    spool = MessageSpool(tmp_path / "spool")
    record = to_record(model)
    for number in range(5):
        message = Message(RecordDict({"model": record}), 2 + number, MessageType.TRAIN)
        message.metadata.__dict__["_message_id"] = f"m{number}"
        spool.put(message)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())
    assert 12 * 1024**2 < on_disk < 12.1 * 1024**2
    for number in range(5):
        taken = spool.take(f"m{number}")
        assert taken.metadata.dst_node_id == 2 + number
        assert_array_equal(from_record(taken.content["model"])["w"], model["w"])
    assert not list((tmp_path / "spool").iterdir())
    with pytest.raises(KeyError):
        spool.take("m0")
    spool.close()
    assert not (tmp_path / "spool").exists()


def test_a_message_that_was_read_leaves_memory_without_the_garbage_collector():
    import gc
    import weakref

    message = message_of({"w": np.ones(10, np.float32)})
    records_of(message.content, type(message.content["model"]))
    gone = weakref.ref(message.content)
    gc.disable()
    try:
        del message
        assert gone() is None
    finally:
        gc.enable()
