"""Qt objects as PythonQt shows them to Python, over PySide6.

A Qt property is a value (``lineEdit.text``, so that ``lineEdit.text()`` fails), everything else is as in C++. Signals
hand over all their arguments; an error in a slot is printed and not raised, as in Slicer, and kept in ``slot_errors``.
"""

import sys
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

slot_errors: list[BaseException] = []
"""What was raised in slots since the list was last cleared; a test that ends with one has failed."""

custom_classes: dict[str, type] = {}
"""Stand-ins of widgets by class name, for the .ui loader."""

_OF_ARITY: dict[int, Callable[[Callable[..., None]], Callable[..., None]]] = {
    0: lambda f: lambda: f(),
    1: lambda f: lambda a: f(a),
    2: lambda f: lambda a, b: f(a, b),
    3: lambda f: lambda a, b, c: f(a, b, c),
}


def wrap(value: Any) -> Any:
    """Return a Qt object under PythonQt's rules, anything else as it is."""
    if isinstance(value, QtCore.QObject):
        return Wrapped(value)
    if isinstance(value, list | tuple):
        return type(value)(wrap(item) for item in value)
    return value


def unwrap(value: Any) -> Any:
    """Return what ``wrap`` was given."""
    if isinstance(value, Wrapped):
        return value._qt_object
    if isinstance(value, WrappedClass):
        return value._qt_class
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item) for item in value)
    return value


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return wrap(function(*[_slot(arg) for arg in unwrap(args)]))

    return call


def _slot(value: Any) -> Any:
    """Wrap Python functions handed to Qt (QTimer.singleShot), so that their errors are printed and kept."""
    if callable(value) and not isinstance(value, type | QtCore.QObject):
        return _reporting(value)
    return value


def _reporting(function: Callable[..., Any]) -> Callable[..., None]:
    def call(*args: Any) -> None:
        try:
            function(*wrap(args))
        except Exception as error:  # noqa: BLE001 - as PythonQt does
            slot_errors.append(error)
            traceback.print_exc(file=sys.stderr)

    return call


class WrappedSignal:
    """A signal of a Qt object: ``connect``, ``disconnect``, ``emit``."""

    def __init__(self, owner: QtCore.QObject, name: str) -> None:
        self._owner, self._name = owner, name

    def connect(self, function: Callable[..., Any], arity: int | None = None) -> None:
        slot = _OF_ARITY[self._arity() if arity is None else arity](_reporting(function))
        connections = self._owner.__dict__.setdefault("_connections", [])
        connections.append((self._name, function, slot))
        getattr(self._owner, self._name).connect(slot)

    def disconnect(self, function: Callable[..., Any]) -> None:
        connections = self._owner.__dict__.get("_connections", [])
        for entry in [e for e in connections if e[:2] == (self._name, function)]:
            getattr(self._owner, self._name).disconnect(entry[2])
            connections.remove(entry)

    def emit(self, *args: Any) -> None:
        getattr(self._owner, self._name).emit(*unwrap(args))

    def _arity(self) -> int:
        meta = self._owner.metaObject()
        methods = [meta.method(index) for index in range(meta.methodCount())]
        named = [
            m for m in methods if m.name() == self._name and m.methodType() == QtCore.QMetaMethod.MethodType.Signal
        ]
        return max(method.parameterCount() for method in named)


class Wrapped:
    """One Qt object under PythonQt's rules."""

    def __init__(self, qt_object: QtCore.QObject) -> None:
        object.__setattr__(self, "_qt_object", qt_object)

    def __getattr__(self, name: str) -> Any:
        own = self._qt_object
        meta = own.metaObject()
        index = meta.indexOfProperty("objectName" if name == "name" else name)
        if index >= 0:
            return wrap(meta.property(index).read(own))
        attribute = getattr(own, name)
        if isinstance(attribute, QtCore.SignalInstance):
            return WrappedSignal(own, name)
        return _call(attribute) if callable(attribute) and not isinstance(attribute, type) else attribute

    def __setattr__(self, name: str, value: Any) -> None:
        own = self._qt_object
        meta = own.metaObject()
        index = meta.indexOfProperty("objectName" if name == "name" else name)
        if index < 0:
            raise AttributeError(f"{meta.className()} has no property {name!r}")
        if not meta.property(index).write(own, unwrap(value)):
            raise ValueError(f"{meta.className()}.{name} cannot be {value!r}")

    def connect(self, signature: str, function: Callable[..., Any]) -> bool:
        """Connect by C++ signature: ``button.connect("clicked(bool)", f)``.

        Raises:
            AttributeError: there is no such signal; PythonQt prints that, and the function is never called.
        """
        meta = self._qt_object.metaObject()
        if meta.indexOfSignal(QtCore.QMetaObject.normalizedSignature(signature).data().decode()) < 0:
            raise AttributeError(f"{meta.className()} has no signal {signature!r}")
        name, _, arguments = signature.partition("(")
        types = [part for part in arguments.rstrip(")").split(",") if part]
        WrappedSignal(self._qt_object, name).connect(function, len(types))
        return True

    def className(self) -> str:
        return self._qt_object.metaObject().className()

    def children(self) -> list[Any]:
        return [wrap(child) for child in self._qt_object.children()]

    def findChildren(self, kind: Any = QtCore.QObject) -> list[Any]:
        return [wrap(child) for child in self._qt_object.findChildren(unwrap(kind))]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapped) and other._qt_object is self._qt_object

    def __hash__(self) -> int:
        return id(self._qt_object)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{self.className()}({self.name})"


class WrappedClass:
    """A Qt class: makes wrapped objects, and gives its enums and static functions."""

    def __init__(self, qt_class: type) -> None:
        self._qt_class = qt_class

    def __call__(self, *args: Any) -> Any:
        return wrap(self._qt_class(*unwrap(args)))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Let Python classes be made of it, as an event filter is."""
        return (self._qt_class,)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._qt_class, name)
        if isinstance(attribute, type) or not callable(attribute):
            return attribute
        return _call(attribute)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(unwrap(value), self._qt_class)


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the stand-ins; connects ``mrmlSceneChanged`` of the top widget as the file says."""

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        for kind in custom_classes.values():
            self.registerCustomWidget(kind)
        text, receivers = _without_scene_connections(bytes(file.readAll().data()).decode())
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer)
        for name in receivers:
            widget.sceneReceivers.append(widget.findChild(QtWidgets.QWidget, name))
        return widget


def _without_scene_connections(text: str) -> tuple[str, list[str]]:
    """Take out the connections whose signal carries a ``vtkMRMLScene*`` (a type PySide6 lacks); return who gets it."""
    root = ET.fromstring(text)
    connections = root.find("connections")
    receivers = []
    for connection in list(connections if connections is not None else []):
        if connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)":
            assert connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
            receivers.append(connection.findtext("receiver", ""))
            connections.remove(connection)
    return ET.tostring(root, encoding="unicode"), receivers


class QtModule(ModuleType):
    """The module ``qt``: every class of QtCore, QtGui, QtWidgets by its name; value types are PySide6's own."""

    def __getattr__(self, name: str) -> Any:
        if name == "QUiLoader":
            return WrappedClass(UiLoader)
        for module in (QtCore, QtGui, QtWidgets):
            if hasattr(module, name):
                found = getattr(module, name)
                is_object = isinstance(found, type) and issubclass(found, QtCore.QObject)
                return WrappedClass(found) if is_object else found
        raise AttributeError(name)
