"""The module works in an interpreter without torch and Flower, in another Python than the worker's, and twice at once.

``FEDSEG_SLICER_PYTHON`` names a second interpreter with trame-slicer[standalone] and PySide6-Essentials, such as one of
Slicer's Python 3.12; without it, this one plays Slicer's part, with everything of the runtime refused.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slicer, pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
MODULE = HERE.parents[1] / "FedSegSlicer"
PLAYERS = [sys.executable, *filter(None, [os.environ.get("FEDSEG_SLICER_PYTHON")])]


def start(player: str, releases: Path, image: Path) -> "subprocess.Popen[str]":
    command = [player, str(HERE / "slicer_alone.py"), sys.executable, str(releases), str(image)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)


def outcome(process: "subprocess.Popen[str]") -> dict:
    told, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    return json.loads(told.splitlines()[-1])


def check(told: dict) -> None:
    assert told["problems"] == []
    assert told["foreign"] == []
    assert told["segments"] == 1
    assert [row[0].split("  ")[0] for row in told["rows"]] == [
        "Liver",
        "Right kidney",
        "Left kidney",
        "Spleen",
        "Lesion",
    ]


@pytest.mark.parametrize("player", PLAYERS)
def test_two_slicers_on_one_computer_do_not_disturb_each_other(player, releases, patients):
    both = [start(player, releases, patients["CT"]) for _ in range(2)]
    first, second = map(outcome, both)
    check(first)
    check(second)
    assert first["rows"] == second["rows"]


def test_the_source_is_one_that_slicers_python_compiles(tmp_path):
    """By every Python from 3.12 on that is here; Slicer 5.10 and later have 3.12."""
    named = [shutil.which(f"python3.{version}") for version in (12, 13, 14)]
    # what is on the path may be a signpost to a Python that is not chosen
    found = [path for path in named if path and subprocess.run([path, "-c", ""], check=False).returncode == 0]
    if os.environ.get("FEDSEG_SLICER_PYTHON"):
        found.append(os.environ["FEDSEG_SLICER_PYTHON"])
    if sys.version_info >= (3, 12):
        found.append(sys.executable)
    if not found:
        pytest.skip("no Python 3.12 or later is on the PATH")
    copy = shutil.copytree(MODULE, tmp_path / "module")
    for python in found:
        subprocess.run([python, "-W", "error", "-m", "compileall", "-q", "-f", str(copy)], check=True)
