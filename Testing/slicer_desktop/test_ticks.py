"""The ticks by which tests see a panel stay alive: a blocked GUI thread is seen, a busy machine is none."""

import os
import subprocess
import sys
import time

import pytest
import qt
import slicer
from panel_helpers import Ticks, _kept_waiting
from scene_helpers import wait_until

pytestmark = [
    pytest.mark.slicer,
    pytest.mark.skipif(_kept_waiting() is None, reason="this system does not count how long a thread waits"),
]


def ticks_around(slot):
    """Return the ticks of a GUI thread in which ``slot`` was called, not yet ended."""
    ticks, called = Ticks(10), []
    ticks.begin()
    qt.QTimer.singleShot(50, lambda: called.append(slot()))
    wait_until(lambda: called and len(ticks.gaps) > 20)
    return ticks


def wait_for_a_process():
    process = qt.QProcess()
    process.start(sys.executable, ["-c", "import time; time.sleep(0.5)"])
    assert process.waitForFinished(10_000)


def rest_a_little():
    time.sleep(0.02)


@pytest.mark.parametrize("slot", [lambda: time.sleep(0.5), lambda: slicer.app.rest(0.5), wait_for_a_process])
def test_a_slot_that_waits_is_seen(slot):
    with pytest.raises(AssertionError, match="blocked for 0"):
        ticks_around(slot).end()


@pytest.mark.parametrize("slot", [rest_a_little, lambda: sum(range(3_000_000))])
def test_a_short_wait_and_a_busy_machine_are_no_block(slot):
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _each in range(2 * os.cpu_count())]
    try:
        ticks = ticks_around(slot)
    finally:
        for other in others:
            other.kill()
            other.wait()
    ticks.end()
    assert max(ticks.gaps) > 0.02
