"""A worker that cannot be started, or is ended while it is needed: nothing waits for ever, the next one answers."""

import os
import platform
import sys

import psutil
import pytest
import qt
import slicer
from FedSegSlicerLib import QtWorkerProcess as process_module
from FedSegSlicerLib import RuntimeInstaller as installer_module
from FedSegSlicerLib.QtTimer import callLater
from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
from FedSegSlicerLib.RuntimeInstaller import InstallOptions, RuntimeInstaller, RuntimeState
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.WorkerSession import WorkerSession
from host.pythonqt import WrappedClass
from PySide6 import QtCore
from scene_helpers import load_volume, wait_until
from test_segment_logic import Desk
from without_qt import EventLoop, SubprocessWorker

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


@pytest.mark.parametrize(
    ("code", "words"),
    [("import time; time.sleep(60)", "it crashed, or was ended from outside"), ("exit(3)", "status 3")],
)
def test_how_a_worker_ended_is_told_in_words_that_can_be_translated(code, words, monkeypatch):
    monkeypatch.setattr(process_module, "_", lambda text: f"«{text}»")
    process, told = QtWorkerProcess(), []
    process.finished.connect(told.append)
    process.start([sys.executable, "-c", code], dict(os.environ))
    if "sleep" in code:
        wait_until(lambda: any("sleep" in str(child.cmdline()) for child in psutil.Process().children()))
        next(child for child in psutil.Process().children() if "sleep" in str(child.cmdline())).kill()
    wait_until(lambda: told, 20)
    assert told[0].startswith("«")
    assert words in told[0]


@pytest.mark.parametrize(
    ("library", "said", "expected"),
    [
        ("glibc", {}, "glibc.malloc.hugetlb=1"),
        ("glibc", {"GLIBC_TUNABLES": "a=1"}, "a=1:glibc.malloc.hugetlb=1"),
        ("glibc", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
        ("", {}, None),
    ],
)
def test_the_worker_computes_in_large_pages_where_linux_has_them(library, said, expected, monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, "2.36"))
    environment = RuntimeLocator(lambda: "", lambda: said).environment()
    assert environment.get("GLIBC_TUNABLES") == expected


def test_an_installer_that_fails_inside_start_does_not_look_for_ever(no_program, monkeypatch, tmp_path):
    monkeypatch.setattr(installer_module, "slicerPython", lambda: str(no_program))
    locator = RuntimeLocator(lambda: "", slicer.util.startupEnvironment, lambda: tmp_path / "runtime")
    installer = RuntimeInstaller(locator, QtWorkerProcess, callLater)
    installer.look(InstallOptions(str(tmp_path / "runtime")))
    assert installer.state is RuntimeState.LOOKING
    wait_until(lambda: not installer.state.isBusy, 10)
    assert installer.problem.code == "runtime.stopped"


@pytest.fixture(scope="module")
def shared_desk():
    made = Desk()
    yield made
    made.logic.close()
    assert not any(worker.isRunning() for worker in made.workers)


@pytest.fixture
def desk(shared_desk):
    shared_desk.clear()
    yield shared_desk
    shared_desk.rest()


def test_a_request_right_after_the_worker_was_stopped_goes_to_another_one(desk, releases):
    former, later = [], []
    order = {"folder": str(releases)}
    first = desk.session.request("releases", order, former.append, former.append)
    desk.session.stop()
    second = desk.session.request("releases", order, later.append, later.append)
    assert len(desk.workers) == 2
    assert first.id == second.id  # each worker's requests are counted for themselves
    desk.session.cancel(first, 10)
    desk.wait(lambda: former and later)
    assert former[0].isCancelled
    assert len(later[0]["releases"]) == 3
    assert desk.session.isRunning()


def test_what_is_open_when_the_worker_is_stopped_fails_without_blaming_the_runtime(releases):
    loop, told = EventLoop(), []
    locator = RuntimeLocator(lambda: sys.executable, lambda: dict(os.environ))
    session = WorkerSession(locator, lambda: SubprocessWorker(loop), loop.callLater)
    session.request("releases", {"folder": str(releases)}, told.append, told.append)
    session.stop()
    assert loop.runUntil(lambda: told, 10)
    assert told[0].code == "worker.ended"
    assert not session.isRunning()


def test_models_are_listed_again_where_cancelling_something_else_ended_the_worker(desk, patients, releases):
    volume = load_volume(patients["CT"])
    desk.segment(volume, "tiny-CT-v1", releases)
    desk.wait(lambda: any(progress.fraction > 0 for progress in desk.progress))
    psutil.Process(desk.workers[-1]._process.pid).suspend()  # as in a tile that takes long
    desk.logic.listReleases(str(releases))
    desk.logic.cancel()
    desk.wait(lambda: desk.errors, 10)
    assert desk.errors[0].isCancelled
    desk.wait(lambda: desk.lists)
    ((listed, error),) = desk.lists
    assert error is None
    assert len(listed) == 3


def test_models_whose_listing_ends_every_worker_are_not_asked_for_for_ever(desk, releases):
    desk.wait(lambda: not desk.session.isBusy())
    psutil.Process(desk.workers[-1]._process.pid).suspend()  # so that it cannot answer first
    desk.logic.listReleases(str(releases))
    for _try in range(2):
        workers = len(desk.workers)
        psutil.Process(desk.workers[-1]._process.pid).kill()
        desk.wait(lambda workers=workers: desk.lists or len(desk.workers) > workers)
    assert [(listed, error.code) for listed, error in desk.lists] == [([], "runtime.unusable")]
