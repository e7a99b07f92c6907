"""One desktop for all tests of this folder, where slicer-core and PySide6 are installed."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("slicer", "PySide6", "trame_slicer") if importlib.util.find_spec(name) is None]
_temporary = tempfile.TemporaryDirectory(prefix="fedseg-slicer-tests-", ignore_cleanup_errors=True)

if not MISSING:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path[:0] = [str(ROOT / "FedSegSlicer"), str(Path(__file__).parent)]
    from host import application, pythonqt

    application.start(Path(_temporary.name))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of this folder import the module's code, which needs the desktop: without it they cannot be collected."""
    if MISSING and collection_path.name.startswith("test_") and collection_path.name != "test_packaging.py":
        config.issue_config_time_warning(
            pytest.PytestWarning(f"{collection_path.name} is left out: {', '.join(MISSING)} not installed"), 2
        )
        return True
    return None


@pytest.fixture(autouse=True)
def clean_desktop():
    """Begin with an empty scene and fresh settings; fail if an error was raised in a slot."""
    if MISSING:
        yield
        return
    import qt
    import slicer

    slicer.mrmlScene.Clear(False)
    qt.QSettings().clear()
    pythonqt.slot_errors.clear()
    yield
    slicer.app.processEvents()
    slicer.mrmlScene.Clear(False)
    assert not pythonqt.slot_errors, f"raised in a slot: {pythonqt.slot_errors}"
