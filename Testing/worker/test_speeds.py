"""What is expected of the next segmentation follows from the former ones, and from nothing else."""

import json
import subprocess
import sys

import pytest

from FedSegCore.worker.speeds import MOST_RUNS, Run, SpeedBook


def run(seconds=10.0, voxels=1000, release="a-CT-v1", device="cpu", memory=5000):
    return Run(release=release, device=device, image_voxels=4 * voxels, network_voxels=voxels, seconds=seconds,
               memory_bytes=memory)  # fmt: skip


def test_nobody_knows_before_the_first_run(tmp_path):
    expected = SpeedBook(tmp_path / "deep" / "speeds.json").expect("a-CT-v1", "cpu", 10, 10)
    assert (expected["runs"], expected["seconds"], expected["memory_bytes"]) == (0, None, None)
    assert expected["free_bytes"] > 0


def test_time_and_memory_go_with_the_size(tmp_path):
    book = SpeedBook(tmp_path / "deep" / "speeds.json")
    for seconds in (9.0, 10.0, 50.0):  # once the computer was busy
        book.note(run(seconds))
    book.note(run(1.0, release="another-v1"))
    book.note(run(1.0, device="cuda"))
    expected = SpeedBook(tmp_path / "deep" / "speeds.json").expect("a-CT-v1", "cpu", 8000, 3000)
    # 10 s for 1000 network voxels and 5000 bytes for 4000 image voxels in the median.
    assert (expected["runs"], expected["seconds"], expected["memory_bytes"]) == (3, 30.0, 10000)


def test_only_the_latest_runs_count_and_old_ones_are_forgotten(tmp_path):
    book = SpeedBook(tmp_path / "speeds.json")
    for number in range(MOST_RUNS + 3):
        book.note(run(1.0 if number < MOST_RUNS else 2.0))
    assert len(book.runs()) == MOST_RUNS
    assert book.expect("a-CT-v1", "cpu", 4000, 1000)["seconds"] == 2.0


@pytest.mark.parametrize("content", [b"", b"{", b'[{"release": 3}]', b"\xff\xfe"])
def test_a_damaged_file_counts_as_empty_and_is_replaced(content, tmp_path):
    (tmp_path / "speeds.json").write_bytes(content)
    book = SpeedBook(tmp_path / "speeds.json")
    assert book.runs() == ()
    book.note(run())
    assert len(json.loads((tmp_path / "speeds.json").read_text())) == 1


def test_a_disk_that_cannot_be_written_to_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    book = SpeedBook(tmp_path / "file" / "speeds.json")
    book.note(run())
    assert book.runs() == ()


GROWING = """
import time
import numpy as np
from FedSegCore.worker.speeds import Watch

with Watch() as watch:
    block = np.ones(200 * 2**20, np.uint8)  # touched, so that it counts
    time.sleep(0.5)
print(watch.seconds, watch.memory_bytes)
"""


def test_the_watch_sees_time_and_growth():
    """In a process of its own: here, what other tests leave to be freed meanwhile would be taken off."""
    done = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, timeout=120, check=True)
    seconds, memory_bytes = done.stdout.split()
    assert float(seconds) >= 0.5
    assert 150 * 2**20 < int(memory_bytes) < 1000 * 2**20
