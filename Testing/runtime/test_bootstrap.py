"""bootstrap.py, run as a user does, in folders of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bootstrap(*arguments: str, runtime: Path | str, cwd: Path = ROOT, **environment: str):
    """Run it with a runtime of the test's own; return the finished process."""
    command = [sys.executable, str(ROOT / "bootstrap.py"), *arguments]
    settings = {**os.environ, "FEDSEG_RUNTIME": str(runtime), **environment}
    return subprocess.run(command, env=settings, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("below", ["", "bin/"])
def test_a_folder_of_the_users_is_refused_and_stays(tmp_path, below):
    data = tmp_path / "data"
    (data / below).mkdir(parents=True)
    (data / below / "scan.nrrd").write_text("an image")
    done = bootstrap("install", runtime="data", cwd=tmp_path)
    assert done.returncode == 4
    assert f"{data} is there already" in done.stderr
    assert (data / below / "scan.nrrd").read_text() == "an image"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("mine")
    assert bootstrap("install", runtime=tmp_path / "data").returncode == 4
    assert (tmp_path / "data").read_text() == "mine"


def test_the_runtime_of_slicers_module_is_refused_and_stays(tmp_path):
    (tmp_path / "core-1").mkdir()
    for name in ("current.json", "pyvenv.cfg"):
        (tmp_path / name).write_text("{}")
    done = bootstrap("demo", runtime=tmp_path)
    assert (done.returncode, "3D Slicer's module" in done.stderr) == (4, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core-1", "current.json", "pyvenv.cfg"]
