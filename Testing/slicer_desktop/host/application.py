"""The rest of Slicer: the application object, scripted-module base classes, translation; and starting it all."""

import ctypes
import importlib
import locale
import logging
import sys
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets
from trame_slicer.core import SlicerApp

from . import parameter_node, sample_data, widgets
from .pythonqt import QtModule, WrappedClass, slot_errors, wrap


class Application:
    """``slicer.app`` as far as the module needs it."""

    applicationName = "Slicer"

    def __init__(self, core: SlicerApp, temporary: Path) -> None:
        self.core = core
        self.connected: list[tuple[str, Callable[[], None]]] = []
        self.temporaryPath = str(temporary)
        before = locale.setlocale(locale.LC_ALL)
        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
        locale.setlocale(locale.LC_ALL, before)  # Qt's would make other tests read files as ASCII
        self.startup = {name: value for name, value in _environment().items() if name not in {"PYTHONPATH"}}
        self._module_manager = ModuleManager()
        self._take_events, self._rest = _event_loop_under_lock()
        self.paused = 0

    def connect(self, signal: str, function: Callable[[], None]) -> None:
        """Remember what Slicer would call when it has started; ``emit`` calls it."""
        self.connected.append((signal, function))

    def emit(self, signal: str) -> None:
        """Call what was connected with ``signal``."""
        for name, function in self.connected:
            if name == signal:
                function()

    def applicationLogic(self) -> Any:
        return self.core.app_logic

    def pauseRender(self) -> None:
        """Draw nothing until ``resumeRender`` was called as often; there is nothing to draw here."""
        self.paused += 1

    def resumeRender(self) -> None:
        self.paused -= 1

    def layoutManager(self) -> None:
        """There is no main window here, as with Slicer's --no-main-window."""

    def topLevelWidgets(self) -> list[Any]:
        """Return all windows; ``slicer.util.mainWindow`` looks for the main window among them."""
        return [wrap(widget) for widget in QtWidgets.QApplication.topLevelWidgets()]

    def testingEnabled(self) -> bool:
        return True

    def moduleManager(self) -> Any:
        return wrap(self._module_manager)

    def close_modules(self) -> None:
        """Destroy the widgets of all modules, as when Slicer ends."""
        self._module_manager.close()

    def processEvents(self) -> None:
        """Take events as Slicer does, whose event loop keeps Python's lock: no other thread runs meanwhile."""
        self._take_events()

    def rest(self, seconds: float) -> None:
        """Do nothing, as the event loop does while there is no event: with Python's lock kept."""
        self._rest(seconds)

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        environment = QtCore.QProcessEnvironment()
        for name, value in self.startup.items():
            environment.insert(name, value)
        return environment


class ModuleManager(QtCore.QObject):
    """Knows scripted modules by name."""

    def __init__(self) -> None:
        super().__init__()
        self._modules: dict[str, ScriptedModule] = {}

    def module(self, name: str) -> "ScriptedModule":
        return self._modules.setdefault(name, ScriptedModule(name))

    def close(self) -> None:
        """Clean up every widget that was made."""
        for module in self._modules.values():
            module.close()
        self._modules.clear()


class ScriptedModule:
    """``qSlicerScriptedLoadableModule``: its widget is made when it is first asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._widget: ScriptedModuleWidget | None = None

    def widgetRepresentation(self) -> "ScriptedModuleWidget":
        if self._widget is None:
            kind = getattr(importlib.import_module(self.name), f"{self.name}Widget")
            self._widget = ScriptedModuleWidget(kind())
            self._widget.self().setup()
        return self._widget

    def close(self) -> None:
        if self._widget is not None:
            self._widget.self().cleanup()
            self._widget.self().parent._qt_object.deleteLater()
            self._widget = None


class ScriptedModuleWidget:
    """``qSlicerScriptedLoadableModuleWidget``: gives the widget that Python code made."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def self(self) -> Any:
        return self._made


def _event_loop_under_lock() -> tuple[Callable[[], None], Callable[[float], None]]:
    """Return ``processEvents`` and ``sleep`` that let no other Python thread run, where these can be had."""
    library = next(Path(QtCore.__file__).parent.glob("Qt/lib/libQt6Core.so.6"), None)
    if library is None:
        return QtCore.QCoreApplication.processEvents, time.sleep
    flags = "6QFlagsIN10QEventLoop17ProcessEventsFlagEE"
    take, rest = ctypes.PyDLL(str(library))[f"_ZN16QCoreApplication13processEventsE{flags}"], ctypes.PyDLL(None).usleep
    take.argtypes, take.restype = [ctypes.c_int], None
    return lambda: take(0), lambda seconds: rest(round(1e6 * seconds))


def single_shot(milliseconds: int, function: Callable[[], None]) -> None:
    """``qt.QTimer.singleShot`` as Slicer replaces it: its timers, and what they call, are kept until Slicer ends."""
    timer = wrap(QtCore.QTimer(slicer.app.moduleManager()._qt_object))
    timer.setSingleShot(True)
    timer.connect("timeout()", function)
    timer.start(milliseconds)


class ApplicationLogHandler(logging.Handler):
    """Takes what the module logs, as Slicer's log does: with Qt."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("FedSegSlicer"):
            _needs_gui_thread("a log record")


def _translated(text: str) -> str:
    _needs_gui_thread("a translation")
    return text


def _needs_gui_thread(what: str) -> None:
    if threading.current_thread() is not threading.main_thread():
        slot_errors.append(RuntimeError(f"{what} was made on another thread, where Slicer would use Qt"))


def _environment() -> dict[str, str]:
    system = QtCore.QProcessEnvironment.systemEnvironment()
    return {name: system.value(name) for name in system.keys()}  # noqa: SIM118


class ScriptedLoadableModule:
    """Holds the module's metadata in ``parent``."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    """Has a ``parent`` widget with a vertical layout, and the folder of its resources."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent or _new_parent()
        self.layout = self.parent.layout()

    def resourcePath(self, name: str) -> str:
        return str(Path(sys.modules[type(self).__module__].__file__).parent / "Resources" / name)

    def setup(self) -> None:
        """Make the developer section; there is none here."""

    def cleanup(self) -> None:
        """Do what the module must before it is destroyed."""


def _new_parent() -> Any:
    own = widgets.qMRMLWidget()
    QtWidgets.QVBoxLayout(own)
    own.setMRMLScene(slicer.mrmlScene)
    return wrap(own)


class ScriptedLoadableModuleLogic:
    """Keeps one parameter node a scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A test that also runs inside Slicer."""

    def delayDisplay(self, message: str, msec: int = 0) -> None:
        del message, msec
        slicer.app.processEvents()


def _make_none_immortal() -> None:
    """Do what Python 3.12 does by itself.

    PySide6 6.12 takes a reference from None whenever a call returns None, which ends an older Python sooner or later
    (measured: 200 calls of ``processEvents`` lower ``sys.getrefcount(None)`` by 200).
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def start(temporary: Path) -> Application:
    """Make this process look like Slicer: ``qt``, ``ctk``, ``slicer.app``, ``slicer.mrmlScene`` and the rest."""
    _make_none_immortal()
    qt, ctk = QtModule("qt"), ModuleType("ctk")
    qt.QTimer = WrappedClass(QtCore.QTimer)
    qt.QTimer.singleShot = single_shot
    for name, kind in widgets.custom_classes.items():
        setattr(slicer if name.startswith("q") else ctk, name, WrappedClass(kind))
    i18n = ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = _translated, lambda context, text: _translated(text)
    logging.getLogger().addHandler(ApplicationLogHandler())
    scripted = ModuleType("slicer.ScriptedLoadableModule")
    for kind in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic,
                 ScriptedLoadableModuleTest):  # fmt: skip
        setattr(scripted, kind.__name__, kind)
    made = {"qt": qt, "ctk": ctk, "slicer.i18n": i18n, "slicer.ScriptedLoadableModule": scripted,
            "SampleData": sample_data.module(), "slicer.parameterNodeWrapper": parameter_node.module()}  # fmt: skip
    sys.modules.update(made)
    for name, module in made.items():
        if name.startswith("slicer."):
            setattr(slicer, name.removeprefix("slicer."), module)
    core = SlicerApp()
    QtCore.QCoreApplication.setOrganizationName("FedSegSlicerTests")
    QtCore.QCoreApplication.setApplicationName("host")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, scope, str(temporary))
    sequences = core.register_module_logic(slicer.vtkSlicerSequencesLogic())  # SlicerApp leaves it out
    slicer.mrmlScene = core.scene
    slicer.qSlicerScriptedLoadableModule = ScriptedModule
    slicer.qSlicerScriptedLoadableModuleWidget = ScriptedModuleWidget
    slicer.modules = SimpleNamespace(
        segmentations=SimpleNamespace(logic=lambda: core.segmentations_logic),
        sequences=SimpleNamespace(logic=lambda: sequences),
        volumes=SimpleNamespace(logic=lambda: core.volumes_logic),
    )
    slicer.app = Application(core, temporary)
    return slicer.app
