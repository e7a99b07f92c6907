"""Whether there is a graphics card is asked of the driver's own tool, which may be broken or hang."""

import os
import time
from pathlib import Path

import pytest

from FedSegCore.runtime import pieces

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tool is played by a shell script")

TABLE = "| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: 12.4 |"


@pytest.mark.parametrize(
    ("script", "card", "cuda"),
    [
        (f"#!/bin/sh\necho '{TABLE}'\n", True, (12, 4)),
        ("#!/bin/sh\nexit 9\n", False, None),
        ("#!/bin/sh\nexec sleep 30\n", False, None),
        ("#!/nowhere/sh\n", False, None),
    ],
    ids=["answers", "fails", "hangs", "broken"],
)
def test_a_driver_counts_if_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, card: bool, cuda: tuple[int, int] | None
) -> None:
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(pieces, "_QUICK_SECONDS", 2.0)
    began = time.monotonic()
    assert (pieces.has_nvidia_gpu(), pieces.driver_cuda()) == (card, cuda)
    assert time.monotonic() - began < 25.0
