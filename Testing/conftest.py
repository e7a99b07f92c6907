"""Fixtures every test may use."""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

# Tests run side by side: more threads than cores would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
# By default the collector goes through PyTorch, Flower and what other tests left again and again.
gc.set_threshold(50_000, 10, 10)
# Workers under test keep what they learn of this computer's speed to themselves.
_speeds = tempfile.TemporaryDirectory(prefix="fedseg-speeds-", ignore_cleanup_errors=True)
os.environ["FEDSEG_SPEEDS"] = str(Path(_speeds.name) / "speeds.json")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, side by side: what is short at the end leaves no core idle."""
    longest = [f"test_{name}.py" for name in (
        "faults", "deployment", "demo_command", "scale", "role_commands", "site_life", "federation_round")]  # fmt: skip
    place = {name: number for number, name in enumerate(longest)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real, labelled images; skip where it is absent."""
    folder = Path(os.environ.get("FEDSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real images are not on this machine (set FEDSEG_DATA to their folder)")
    return folder


@pytest.fixture
def windows_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let text files get Windows' line ends where nobody says others, as Python does it there."""
    opened = Path.open

    def windows_open(self, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        if newline is None and "b" not in mode and "r" not in mode:
            newline = "\r\n"
        return opened(self, mode, buffering, encoding, errors, newline)

    monkeypatch.setattr(Path, "open", windows_open)


@pytest.fixture
def restored_log() -> Iterator[None]:
    """Leave our own log as it was: what sends it to a file or a stream does so for the rest of the process."""
    ours = logging.getLogger("FedSegCore")
    level, propagate, handlers = ours.level, ours.propagate, ours.handlers[:]
    yield
    for handler in set(ours.handlers) - set(handlers):
        ours.removeHandler(handler)
        handler.close()
    ours.setLevel(level)
    ours.propagate = propagate


@pytest.fixture
def fedseg(monkeypatch, capsys, caplog, restored_log) -> Callable[..., SimpleNamespace]:
    """Run the fedseg command in this process through its entry point; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> SimpleNamespace:
        from FedSegCore.cli.main import main

        monkeypatch.setattr(sys, "argv", ["fedseg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        if "torch" in sys.modules:  # a command may take all cores, for good
            sys.modules["torch"].set_num_threads(1)
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return run
