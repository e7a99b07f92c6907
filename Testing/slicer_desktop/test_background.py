"""Work beside the GUI thread, in an event loop that keeps Python's lock as Slicer's does."""

import gc
import time
import weakref

import pytest
import qt
import slicer
from FedSegSlicerLib.Background import Steps, onThread
from FedSegSlicerLib.QtTimer import callLater
from scene_helpers import wait_until


class Voxels:
    """What a function that is called later refers to."""


def outlived(call_later) -> bool:
    """Return whether what a function refers to is still there after it was called."""
    voxels, called = Voxels(), []
    alive = weakref.ref(voxels)
    call_later(0, lambda kept=voxels: called.append(type(kept)))
    del voxels
    wait_until(lambda: bool(called))
    slicer.app.processEvents()
    slicer.app.processEvents()
    gc.collect()
    return alive() is not None


def test_a_call_that_was_made_keeps_nothing_in_memory():
    assert outlived(qt.QTimer.singleShot), "Slicer's own keeps it; were that otherwise, callLater were not needed"
    assert not outlived(callLater)


def test_calls_come_in_the_order_of_their_times_and_once():
    calls = []
    for milliseconds in (30, 10, 20):
        callLater(milliseconds, lambda m=milliseconds: calls.append(m))
    wait_until(lambda: len(calls) >= 3)
    slicer.app.rest(0.05)
    slicer.app.processEvents()
    assert calls == [10, 20, 30]


def test_what_steps_hold_is_let_go_where_they_are_stopped():
    told = []

    def hold():
        try:
            while True:
                told.append("step")
                yield
        finally:
            told.append("let go")

    steps = Steps(callLater, hold(), pytest.fail, pytest.fail)
    wait_until(lambda: bool(told))
    steps.stop()
    wait_until(lambda: told[-1] == "let go")


def test_a_thread_is_not_starved_by_an_event_loop_that_keeps_the_lock():
    """Reading many small files, as a result's are, gives the lock away at every file."""
    turns = 400

    def work() -> int:
        for _turn in range(turns):
            time.sleep(0)
        return turns

    done, looks = [], []

    def count(milliseconds, function):
        looks.append(milliseconds)
        callLater(milliseconds, function)

    onThread(count, work, done.append, pytest.fail, lambda error: error)
    wait_until(lambda: bool(done))
    assert done == [turns]
    assert len(looks) < turns / 10


def test_whoever_waits_for_a_thread_is_told_whatever_happens_there(caplog):
    name = "a patient's name.nrrd"

    def work() -> None:
        raise EOFError(name)  # as NumPy raises of an empty file

    told = []
    onThread(callLater, work, pytest.fail, told.append, pytest.fail)
    wait_until(lambda: bool(told))
    assert told[0].code == "module.failed"
    assert "EOFError" in caplog.text
    assert "in work" in caplog.text
    assert name not in caplog.text
