"""The rest of Slicer: the application object, scripted-module base classes, translation; and starting it all."""

import ctypes
import sys
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets
from trame_slicer.core import SlicerApp

from . import parameter_node, widgets
from .pythonqt import QtModule, WrappedClass, wrap


class Application:
    """``slicer.app`` as far as the module needs it."""

    applicationName = "Slicer"

    def __init__(self, core: SlicerApp, temporary: Path) -> None:
        self.core = core
        self.temporaryPath = str(temporary)
        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
        self.startup = {name: value for name, value in _environment().items() if name not in {"PYTHONPATH"}}

    def applicationLogic(self) -> Any:
        return self.core.app_logic

    def layoutManager(self) -> None:
        """There is no main window here, as with Slicer's --no-main-window."""

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        self.qt_application.processEvents()

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        environment = QtCore.QProcessEnvironment()
        for name, value in self.startup.items():
            environment.insert(name, value)
        return environment


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
    for name, kind in widgets.custom_classes.items():
        setattr(slicer if name.startswith("q") else ctk, name, WrappedClass(kind))
    i18n = ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = lambda text: text, lambda context, text: text
    scripted = ModuleType("slicer.ScriptedLoadableModule")
    for kind in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic,
                 ScriptedLoadableModuleTest):  # fmt: skip
        setattr(scripted, kind.__name__, kind)
    made = {"qt": qt, "ctk": ctk, "slicer.i18n": i18n, "slicer.ScriptedLoadableModule": scripted,
            "slicer.parameterNodeWrapper": parameter_node.module()}  # fmt: skip
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
    core.register_module_logic(slicer.vtkSlicerSequencesLogic())  # SlicerApp leaves it out
    slicer.mrmlScene = core.scene
    slicer.modules = SimpleNamespace(segmentations=SimpleNamespace(logic=lambda: core.segmentations_logic))
    slicer.app = Application(core, temporary)
    return slicer.app
