"""Which build of PyTorch a graphics card gets: asked of the driver's own tool, which may be broken or hang."""

import os
import time
from pathlib import Path

import pytest
from test_runtime_installation import install, make_wheel, slicer_python, source  # noqa: F401

from FedSegCore.runtime import pieces
from FedSegCore.runtime.plan import make_plan

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tool is played by a shell script")

TABLE = "| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: {cuda} |"
TORCH = """
__version__ = "2.13.0+cu130"
class cuda:
    is_available = staticmethod(lambda: False)
"""


def play_driver(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a tool into ``folder`` that answers as ``script`` does, before all others."""
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "cuda"),
    [
        (f"#!/bin/sh\necho '{TABLE.format(cuda='12.4')}'\n", (12, 4)),
        ("#!/bin/sh\nexit 9\n", None),
        ("#!/bin/sh\nexec sleep 30\n", None),
        ("#!/nowhere/sh\n", None),
    ],
    ids=["answers", "fails", "hangs", "broken"],
)
def test_a_driver_counts_if_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, cuda: tuple[int, int] | None
) -> None:
    play_driver(monkeypatch, tmp_path, script)
    monkeypatch.setattr(pieces, "_QUICK_SECONDS", 2.0)
    began = time.monotonic()
    assert pieces.driver_cuda() == cuda
    assert time.monotonic() - began < 25.0


@pytest.mark.parametrize(
    ("cuda", "variants"),
    [
        ("13.2", ("cu132", "cu130", "cu126")),
        ("13.0", ("cu130", "cu126")),
        ("12.8", ("cu126",)),
        ("12.2", ("cu126",)),  # CUDA's minor versions are compatible
        ("12.0", ("cu126",)),
    ],
)
def test_a_driver_gets_the_builds_that_it_can_run(tmp_path, monkeypatch, cuda, variants):
    play_driver(monkeypatch, tmp_path, f"#!/bin/sh\necho '{TABLE.format(cuda=cuda)}'\n")
    plan = make_plan(tmp_path, "auto", None)
    assert (plan.build, plan.variants) == ("cuda", variants)


@pytest.mark.parametrize("answer", [TABLE.format(cuda="11.8"), "| Driver Version: 390.1 |"])
def test_a_driver_too_old_for_every_build_gets_the_processors(tmp_path, monkeypatch, answer):
    play_driver(monkeypatch, tmp_path, f"#!/bin/sh\necho '{answer}'\n")
    assert make_plan(tmp_path, "auto", None).build == "cpu"
    assert make_plan(tmp_path, "cuda", None).variants == ("cu126",)  # what is wanted all the same


@pytest.mark.parametrize(("build", "note"), [("cuda", "runtime.no-gpu"), ("cpu", None)])
def test_a_graphics_card_that_pytorch_cannot_use_is_told(slicer_python, source, tmp_path, build, note):  # noqa: F811
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "torch", TORCH, version=pieces.pinned(source, "torch").partition("==")[2])
    order = {"build": build, "requirements": ["torch"], "imports": ["torch"]}
    for action in ("install", "check"):
        child = install(slicer_python, source, wheels, tmp_path / "runtime", action=action, **order)
        told = child.end()
        assert (told["event"], told.get("note")) == ("ready", note)
        assert any("cannot use" in str(event.get("text")) for event in child.events) == (note is not None)
