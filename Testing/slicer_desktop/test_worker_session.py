"""A worker that cannot be started, or is ended while it is needed: nothing waits for ever, the next one answers."""

import pytest
import qt
import slicer
from FedSegSlicerLib import RuntimeInstaller as installer_module
from FedSegSlicerLib.QtTimer import callLater
from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
from FedSegSlicerLib.RuntimeInstaller import InstallOptions, RuntimeInstaller, RuntimeState
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.WorkerSession import WorkerSession
from host.pythonqt import WrappedClass
from PySide6 import QtCore
from scene_helpers import wait_until

pytestmark = pytest.mark.slicer


@pytest.fixture
def no_program(tmp_path, monkeypatch):
    """A file that no system can start, and a Qt that tells so before ``start`` returns, as on Windows."""

    class EarlyProcess(QtCore.QProcess):
        def start(self, program, arguments):
            super().start(program, arguments)
            assert not self.waitForStarted()
            assert self.error() == QtCore.QProcess.ProcessError.FailedToStart

    monkeypatch.setattr(qt, "QProcess", WrappedClass(EarlyProcess))
    path = tmp_path / "python"
    path.write_text("not a program")
    path.chmod(0o755)
    return path


def test_a_program_that_fails_inside_start_is_told_to_whoever_asked(no_program):
    locator = RuntimeLocator(lambda: str(no_program), slicer.util.startupEnvironment)
    session, errors = WorkerSession(locator, QtWorkerProcess, callLater), []
    session.request("releases", {"folder": ""}, print, errors.append)
    assert errors == []
    wait_until(lambda: errors, 10)
    assert errors[0].code == "runtime.unusable"


def test_an_installer_that_fails_inside_start_does_not_look_for_ever(no_program, monkeypatch, tmp_path):
    monkeypatch.setattr(installer_module, "slicerPython", lambda: str(no_program))
    locator = RuntimeLocator(lambda: "", slicer.util.startupEnvironment, lambda: tmp_path / "runtime")
    installer = RuntimeInstaller(locator, QtWorkerProcess, callLater)
    installer.look(InstallOptions(str(tmp_path / "runtime")))
    assert installer.state is RuntimeState.LOOKING
    wait_until(lambda: not installer.state.isBusy, 10)
    assert installer.problem.code == "runtime.stopped"
