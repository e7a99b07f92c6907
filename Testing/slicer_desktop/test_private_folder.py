"""Images handed to the worker do not outlive a Slicer that crashed, and one that lives keeps its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from FedSegSlicerLib import PrivateFolder as module
from FedSegSlicerLib.PrivateFolder import YOUNG_SECONDS, PrivateFolder

OTHER_SLICER = """
import sys
from FedSegSlicerLib.PrivateFolder import PrivateFolder
folder = PrivateFolder()
(folder.path / "volume-1.nrrd").write_bytes(b"an image")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other_slicer(temporary):
    """Another process with a folder of its own; yields the process and the folder."""
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_SLICER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def aged(folder: Path) -> Path:
    """Return the folder, made to look as if nothing had happened in it for a while."""
    then = time.time() - 2 * YOUNG_SECONDS
    os.utime(folder, (then, then))
    return folder


def test_a_folder_is_for_this_user_alone_and_goes_when_told():
    folder = PrivateFolder()
    assert folder.path.stat().st_mode & 0o077 == 0
    (folder.path / "samples-1").mkdir()
    folder.remove()
    assert not folder.path.exists()


def test_what_a_crashed_slicer_left_is_removed_by_the_next(other_slicer):
    process, left = other_slicer
    process.kill()
    process.wait()
    assert (aged(left) / "volume-1.nrrd").exists()
    PrivateFolder().remove()
    assert not left.exists()


def test_a_slicer_that_lives_keeps_its_folder(other_slicer):
    _process, folder = other_slicer
    aged(folder)
    PrivateFolder().remove()
    assert (folder / "volume-1.nrrd").read_bytes() == b"an image"


def test_ones_own_folders_stay():
    first = PrivateFolder()
    aged(first.path)
    second = PrivateFolder()
    assert first.path.is_dir()
    first.remove()
    second.remove()


def test_only_old_folders_of_ours_go(temporary):
    young, old, elsewhere = temporary / "FedSegSlicer-young", temporary / "FedSegSlicer-old", temporary / "data"
    for folder in (young, old, elsewhere):
        folder.mkdir()
    (elsewhere / "scan.nrrd").touch()
    (temporary / "FedSegSlicer-link").symlink_to(elsewhere)
    (temporary / "FedSegSlicer-file").touch()
    aged(old)
    aged(temporary / "FedSegSlicer-file")
    os.utime(temporary / "FedSegSlicer-link", (0, 0), follow_symlinks=False)
    PrivateFolder().remove()
    assert sorted(path.name for path in temporary.iterdir()) == [
        "FedSegSlicer-file", "FedSegSlicer-link", "FedSegSlicer-young", "data",
    ]  # fmt: skip
    assert (elsewhere / "scan.nrrd").exists()
