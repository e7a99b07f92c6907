"""Fixtures every test may use."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the two files whose real processes need all cores at the two ends of the suite, not side by side."""
    place = {"test_deployment.py": -1, "test_demo_command.py": 1}
    items.sort(key=lambda item: place.get(item.path.name, 0))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real, labelled images; skip where it is absent."""
    folder = Path(os.environ.get("FEDSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real images are not on this machine (set FEDSEG_DATA to their folder)")
    return folder


@pytest.fixture
def fedseg(monkeypatch, capsys, caplog) -> Callable[..., SimpleNamespace]:
    """Run the fedseg command in this process through its entry point; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> SimpleNamespace:
        from FedSegCore.cli.main import main

        monkeypatch.setattr(sys, "argv", ["fedseg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return run
