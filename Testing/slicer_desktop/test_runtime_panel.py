"""First use through the real .ui: no runtime, installing from a folder of wheels, cancel, problems, update, remove."""

import json
import shutil
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import qt
import slicer
from FedSegSlicerLib import VERSION, RuntimeLocator
from FedSegSlicerLib.RuntimeInstaller import RuntimeState, shippedSource
from FedSegSlicerLib.RuntimeLocator import coreFingerprint
from FedSegSlicerLib.RuntimePanel import stageWords
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.Settings import RUNTIME, RUNTIME_FOLDER, RUNTIME_PROXY, readSetting, writeSetting
from FedSegSlicerLib.WorkerSession import versionProblem
from panel_helpers import Panel, Ticks, answering, check_nothing_is_clipped
from scene_helpers import keep_pictures, load_volume, wait_until

pytestmark = pytest.mark.slicer
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheels(tmp_path):
    """Return a folder with one small wheel, written by hand."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {f"tinyone/part{number}.py": "value = 1\n" for number in range(1500)}
    files["tinyone/__init__.py"] = "value = 1\n"
    files["tinyone-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: tinyone\nVersion: 1.0\n"
    files["tinyone-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files["tinyone-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(folder / "tinyone-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return folder


@pytest.fixture
def open_without(tmp_path, monkeypatch, wheels):
    """Open the module where no runtime is found; it installs the small wheel."""
    panels = []
    monkeypatch.delenv("FEDSEG_RUNTIME", raising=False)
    monkeypatch.setattr(RuntimeLocator.RuntimeLocator, "_usualPlaces", lambda self: iter([self.installFolder()]))

    def open_():
        writeSetting(RUNTIME_FOLDER, str(tmp_path / "runtime"))
        writeSetting(RUNTIME, "")
        panel = Panel()
        panels.append(panel)
        panel.widget.parent._qt_object.resize(420, 1000)  # Slicer scrolls the module panel
        panel.runtime = panel.widget.runtimePanel
        panel.runtime.installer.extraOrder = {"requirements": ["tinyone"], "imports": ["tinyone", "FedSegCore"]}
        settle(panel)
        panel.ui.runtimeWheelsEdit.currentPath = str(wheels)
        settle(panel)
        return panel

    yield open_
    for panel in panels:
        panel.widget.cleanup()
        panel.widget.parent._qt_object.deleteLater()


@contextmanager
def opened_files():
    """Take the files that the desktop would open in another program."""
    from PySide6 import QtCore, QtGui

    class Opener(QtCore.QObject):
        @QtCore.Slot(QtCore.QUrl)
        def open(self, url):
            opened.append(url.toLocalFile())

    opened, opener = [], Opener()
    QtGui.QDesktopServices.setUrlHandler("file", opener, "open")
    yield opened
    QtGui.QDesktopServices.unsetUrlHandler("file")


def settle(panel):
    wait_until(lambda: not panel.runtime.installer.state.isBusy)


def test_first_use_with_pictures(open_without, tmp_path):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert ui.runtimeFrame.isVisible()
    assert "not installed yet" in ui.runtimeTitleLabel.text
    assert "Nothing to download." in ui.runtimePlanLabel.text
    assert str(tmp_path / "runtime") in ui.runtimePlanLabel.text
    assert (ui.runtimeInstallButton.text, ui.runtimeInstallButton.enabled) == ("Install", True)
    assert not ui.runtimeRemoveButton.enabled
    assert ui.runtimeRemoveButton.toolTip == "The module has not installed a runtime."
    slicer.app.processEvents()  # the layout follows what is shown since just now
    panel.picture(pictures / "runtime-absent.png")
    check_nothing_is_clipped(panel)
    ticks = Ticks(20)
    ticks.begin()
    ui.runtimeInstallButton.click()
    wait_until(lambda: "Unpacking" in ui.runtimeProgressLabel.text)
    assert ui.runtimeInstallButton.text == "Cancel"
    panel.picture(pictures / "runtime-installing.png")
    settle(panel)
    ticks.end()
    assert max(ticks.busy) < 0.1
    assert (installer.state, installer.problem) == (RuntimeState.READY, None)
    assert not ui.runtimeFrame.isVisible()
    assert ui.runtimeInfoLabel.text == f"Installed: version {VERSION}, PyTorch –, computes on cpu."
    command = panel.logic.session.locator.arguments()
    assert command[1].startswith(str(tmp_path / "runtime"))
    ui.runtimeCheckButton.click()
    settle(panel)
    assert (installer.state, ui.runtimeTitleLabel.text) == (RuntimeState.READY, "FedSegSlicer's runtime is ready.")
    ui.runtimeRepairButton.click()
    settle(panel)
    assert (ui.runtimeFrame.isVisible(), ui.runtimeInstallButton.text) == (True, "Repair")
    panel.picture(pictures / "runtime-repair.png")
    ui.runtimeCloseButton.click()
    settle(panel)
    assert not ui.runtimeFrame.isVisible()
    answering("Remove")
    said = []
    installer.changed.connect(lambda: said.append(ui.runtimeProgressLabel.text))
    ui.runtimeRemoveButton.click()
    settle(panel)
    assert "Deleting files…" in said
    wait_until(lambda: installer.state is RuntimeState.ABSENT and installer.plan is not None)
    assert ui.runtimeFrame.isVisible()
    assert not (tmp_path / "runtime").exists()
    keep_pictures(pictures)


def test_cancelled_and_failed_installations_say_so(open_without, tmp_path, wheels):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    ui.runtimeInstallButton.click()
    wait_until(lambda: "Unpacking" in ui.runtimeProgressLabel.text)
    ui.runtimeInstallButton.click()
    assert not ui.runtimeInstallButton.enabled
    settle(panel)
    assert (installer.state, installer.problem) == (RuntimeState.ABSENT, None)
    assert list((tmp_path / "runtime").glob("*-[0-9]*")) == []
    (wheels / "tinyone-1.0-py3-none-any.whl").write_bytes(b"PK no wheel")
    ui.runtimeInstallButton.click()
    settle(panel)
    assert ui.runtimeMessageLabel.isVisible()
    assert "runtime.broken-package" in ui.runtimeMessageLabel.text
    assert "copy the one that the log names again" in ui.runtimeMessageLabel.text
    assert ui.runtimeLogButton.isVisible()
    with opened_files() as opened:
        ui.runtimeLogButton.click()
    assert opened == [str(tmp_path / "runtime" / "install.log")]
    assert "tinyone" in installer.logText(panel.runtime.options())
    picture = tmp_path / "pictures"
    picture.mkdir()
    panel.picture(picture / "runtime-problem.png")
    keep_pictures(picture)
    with (wheels / "huge-1.0-py3-none-any.whl").open("wb") as file:
        file.truncate(2**43)
    panel.runtime._look()
    settle(panel)
    assert not ui.runtimeInstallButton.enabled
    assert "not enough room" in ui.runtimeInstallButton.toolTip


def test_a_graphics_card_that_is_not_used_is_told_until_it_is_put_away(open_without, wheels):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    source = '__version__ = "2.13.0+cu130"\nclass cuda:\n    is_available = staticmethod(lambda: False)\n'
    with zipfile.ZipFile(wheels / "torch-2.13.0-py3-none-any.whl", "w") as archive:
        archive.writestr("torch/__init__.py", source)
        info = "torch-2.13.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    installer.extraOrder = {"requirements": ["torch"], "imports": ["torch"]}
    ui.runtimeBuildComboBox.currentIndex = 2
    settle(panel)
    ui.runtimeInstallButton.click()
    settle(panel)
    assert installer.state is RuntimeState.READY
    assert ui.runtimeFrame.isVisible()
    assert "runtime.no-gpu" in ui.runtimeMessageLabel.text
    assert "Update the card" in ui.runtimeMessageLabel.text
    ui.runtimeCloseButton.click()
    settle(panel)
    assert not ui.runtimeFrame.isVisible()


def install_older(panel, tmp_path):
    """Install a runtime and let it be of version 0.0.9."""
    panel.ui.runtimeInstallButton.click()
    settle(panel)
    current = tmp_path / "runtime" / "current.json"
    current.write_text(current.read_text().replace(f'"version": "{VERSION}"', '"version": "0.0.9"'))
    panel.runtime.refresh()
    settle(panel)


def test_a_runtime_of_another_version_is_told_with_its_remedy(open_without, tmp_path):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    install_older(panel, tmp_path)
    assert installer.state is RuntimeState.OUTDATED
    assert f"The module is version {VERSION}, its runtime 0.0.9." in ui.runtimeMessageLabel.text
    assert "Press Update" in ui.runtimeMessageLabel.text
    assert ui.runtimeInstallButton.text == "Update"
    ui.runtimeInstallButton.click()
    settle(panel)
    assert installer.state is RuntimeState.READY
    panel.logic.session.started.emit(versionProblem({"protocol": 1, "version": "0.0.8"}))
    settle(panel)
    assert installer.state is RuntimeState.OUTDATED
    assert "0.0.8" in ui.runtimeMessageLabel.text


def test_a_runtime_of_the_same_version_but_an_older_core_is_told_with_its_remedy(open_without, tmp_path):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    ui.runtimeInstallButton.click()
    settle(panel)
    current = tmp_path / "runtime" / "current.json"
    installed = json.loads(current.read_text())
    assert installed["core_sha256"] == coreFingerprint(ROOT)
    wait_until(lambda: installer._shipped)
    assert installer.state is RuntimeState.READY
    current.write_text(json.dumps({**installed, "core_sha256": "0" * 64}))
    panel.widget.enter()
    wait_until(lambda: "runtime.other-core" in ui.runtimeMessageLabel.text)
    wait_until(lambda: installer.state is RuntimeState.OUTDATED and installer.plan is not None)
    ui.runtimeCheckButton.click()  # it can be used, and is outdated all the same
    settle(panel)
    wait_until(lambda: installer.state is RuntimeState.OUTDATED)
    assert "runtime.other-core" in ui.runtimeMessageLabel.text
    assert (ui.runtimeInstallButton.text, ui.runtimeInstallButton.enabled) == ("Update", True)
    ui.runtimeInstallButton.click()
    settle(panel)
    panel.widget.enter()
    assert (installer.state, installer.problem) == (RuntimeState.READY, None)
    assert json.loads(current.read_text())["core_sha256"] == installed["core_sha256"]


def test_a_check_of_an_outdated_runtime_leaves_it_outdated(open_without, tmp_path):
    panel = open_without()
    install_older(panel, tmp_path)
    panel.ui.runtimeCheckButton.click()
    settle(panel)
    assert panel.runtime.installer.state is RuntimeState.OUTDATED
    assert "its runtime 0.0.9" in panel.ui.runtimeMessageLabel.text


def test_another_folder_is_looked_at_anew_also_while_it_is_typed(open_without, tmp_path):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    install_older(panel, tmp_path)
    assert installer.state is RuntimeState.OUTDATED
    for typed in ("e", "els", "else"):
        ui.runtimeFolderEdit.currentPath = str(tmp_path / typed)
    wait_until(lambda: installer.state is RuntimeState.ABSENT and installer.present == {})
    assert "not installed yet" in ui.runtimeTitleLabel.text
    assert not ui.runtimeMessageLabel.isVisible()
    ui.runtimeFolderEdit.currentPath = str(tmp_path / "e")
    ui.runtimeFolderEdit.currentPath = str(tmp_path / "runtime")
    wait_until(lambda: installer.state is RuntimeState.OUTDATED and installer.present.get("version") == "0.0.9")


def test_what_runs_is_not_cut_off_by_repair_and_removal(open_without, releases, patients, tmp_path):
    panel = open_without()
    ui, installer = panel.ui, panel.runtime.installer
    ui.runtimeInstallButton.click()
    settle(panel)
    ui.runtimePathEdit.currentPath = sys.executable  # the installed one has no PyTorch
    ui.releasesPathEdit.currentPath = str(releases)
    ui.inputSelector.setCurrentNode(load_volume(patients["CT"]))
    ui.modalityComboBox.setCurrentIndex(1)
    panel.ready()
    ui.releaseComboBox.setCurrentIndex(1)
    ui.segmentButton.click()
    wait_until(lambda: ui.progressBar.value > 0)
    ui.runtimeRemoveButton.click()
    assert "runtime.working" in ui.runtimeMessageLabel.text
    assert (tmp_path / "runtime" / "current.json").exists()
    ui.runtimeRepairButton.click()
    settle(panel)
    ui.runtimeInstallButton.click()
    settle(panel)
    assert (installer.state, installer.problem) == (RuntimeState.READY, None)
    panel.idle()
    assert findResult(panel.parameters.inputVolume) is not None, ui.messageLabel.text
    wait_until(lambda: not panel.logic.session.isBusy())
    writeSetting(RUNTIME, sys.executable)
    scripted, told = panel.widget.logic.makeSession(), []
    scripted.request("releases", {"folder": str(releases)}, told.append, told.append)
    assert not panel.runtime._isFree()  # nor is what a script does cut off
    wait_until(lambda: told)
    assert scripted.isRunning()
    writeSetting(RUNTIME, "")
    answering("Remove")
    ui.runtimeRemoveButton.click()
    settle(panel)
    assert not (tmp_path / "runtime").exists()
    wait_until(lambda: not scripted.isRunning())


def test_options_are_kept_and_decide_what_is_planned(open_without, tmp_path):
    """The build for the processor, the cure of a runtime that fails its check, is still chosen after a restart."""
    panel = open_without()
    ui = panel.ui
    builds = [ui.runtimeBuildComboBox.itemText(index) for index in range(ui.runtimeBuildComboBox.count)]
    assert builds == ["Automatic", "Processor only", "NVIDIA graphics card (CUDA)"]
    assert panel.runtime.options().build == "auto"
    ui.runtimeWheelsEdit.currentPath = ""
    settle(panel)
    for index, size, build in ((2, "3.5 GB", "NVIDIA"), (1, "430 MB", "processor")):
        ui.runtimeBuildComboBox.currentIndex = index
        settle(panel)
        assert size in ui.runtimePlanLabel.text
        assert build in ui.runtimePlanLabel.text
    certificate = tmp_path / "ca.pem"
    certificate.write_text("a certificate")
    ui.runtimeCaEdit.currentPath = str(certificate)
    settle(panel)
    ui.runtimeFolderEdit.currentPath = str(tmp_path / "elsewhere")
    settle(panel)
    assert str(tmp_path / "elsewhere") in ui.runtimePlanLabel.text
    again = Panel()
    assert again.ui.runtimeBuildComboBox.currentText == "Processor only"
    options = again.widget.runtimePanel.options()
    assert (options.build, options.ca, options.folder) == ("cpu", str(certificate), str(tmp_path / "elsewhere"))
    again.widget.cleanup()
    again.widget.parent._qt_object.deleteLater()


def test_a_proxys_password_is_not_kept(open_without):
    panel = open_without()
    for address, kept in (("http://proxy:3128", "http://proxy:3128"), ("http://me:secret@proxy:3128", "")):
        panel.ui.runtimeProxyEdit.setText(address)
        panel.ui.runtimeProxyEdit._qt_object.editingFinished.emit()
        assert readSetting(RUNTIME_PROXY) == kept
        assert panel.runtime.options().proxy == address
    assert "secret" not in str([qt.QSettings().value(key) for key in qt.QSettings().allKeys()])


def test_the_source_is_what_ships_else_the_checkout(tmp_path, monkeypatch):
    from FedSegSlicerLib import RuntimeInstaller

    assert shippedSource() == ROOT
    shutil.copytree(ROOT / "FedSegSlicer" / "FedSegSlicerLib", tmp_path / "FedSegSlicerLib")
    monkeypatch.setattr(RuntimeInstaller, "__file__", str(tmp_path / "FedSegSlicerLib" / "RuntimeInstaller.py"))
    (tmp_path / "Resources" / "Runtime").mkdir(parents=True)
    assert shippedSource() == tmp_path / "Resources" / "Runtime"


def test_a_package_is_named_without_the_versions_that_are_wanted():
    lines = ["Collecting numpy", "Collecting monai<1.7,>=1.5 (from fedsegslicer)", "Downloading monai-1.6.1.whl (2 MB)"]
    assert stageWords("downloading", lines) == "Downloading: monai…"
    assert stageWords("downloading", lines[:1]) == "Downloading: numpy…"
    assert stageWords("checking", lines) == "Checking: importing what the worker needs…"
