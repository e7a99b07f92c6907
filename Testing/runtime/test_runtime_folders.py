"""What in a runtime's folder is FedSegSlicer's, and what is the user's own; and a folder that cannot be."""

from pathlib import Path

import pytest
from test_runtime_installation import install, slicer_python, source, wheels  # noqa: F401

from FedSegCore.runtime.installer import Children, Installer, Order, Reporter
from FedSegCore.runtime.layout import InstallError


def test_a_runtime_without_marks_goes_on_and_is_removed(slicer_python, source, wheels, tmp_path):  # noqa: F811
    """As installed by a version that did not mark its folders yet."""

    def unmark():
        for mark in tmp_path.glob("*/made-by-fedsegslicer"):
            mark.unlink()

    assert install(slicer_python, source, wheels, tmp_path).end()["event"] == "ready"
    unmark()
    assert install(slicer_python, source, wheels, tmp_path, fresh=True).end()["event"] == "ready"
    assert {p.name for p in tmp_path.glob("*-[0-9]*")} == {"core-2", "packages-2"}
    unmark()
    for file in tmp_path.glob("*/in-use"):
        file.unlink()  # as Windows leaves it after asking whether the folder is in use
    assert install(slicer_python, source, wheels, tmp_path, action="remove").end() == {"event": "removed"}
    assert not tmp_path.exists()


def test_a_drive_that_is_not_there_is_told(tmp_path, monkeypatch):
    """Only on Windows has a folder's path a start that may be missing; here nothing is there for the moment."""
    order = Order(action="look", source=str(tmp_path), folder=str(tmp_path / "runtime"))
    with monkeypatch.context() as here:
        here.setattr(Path, "is_dir", lambda _path: False)
        with pytest.raises(InstallError, match="no-drive"):
            Installer(order, Reporter(), Children()).run()
