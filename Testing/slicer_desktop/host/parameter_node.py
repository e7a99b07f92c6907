"""``slicer.parameterNodeWrapper`` for the types the module uses, over the real vtkMRMLScriptedModuleNode.

Its contract is Slicer's ``Docs/developer_guide/parameter_nodes``: typed attributes kept in the node, defaults written
at once, widgets with a ``SlicerParameterName`` property kept equal to them between connectGui and disconnectGui.
"""

import enum
import typing
from types import ModuleType
from typing import Any

import slicer


class Choice:
    """The values a parameter may have."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices


class WithinRange:
    """The bounds a parameter keeps to."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


class Default:
    """A parameter's first value."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _plain(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(kind) is typing.Annotated:
        return typing.get_args(kind)[0], typing.get_args(kind)[1:]
    return kind, ()


class _Parameter:
    def __init__(self, name: str, kind: Any, default: Any) -> None:
        self.name, self.default = name, default
        self.kind, self.annotations = _plain(kind)
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, self.kind):
            raise TypeError(f"{self.name}: {value!r} is not {self.kind.__name__}")
        for annotation in self.annotations:
            if isinstance(annotation, Choice) and value not in annotation.choices:
                raise ValueError(f"{self.name}: {value!r} is not one of {annotation.choices}")
            if isinstance(annotation, WithinRange) and not annotation.minimum <= value <= annotation.maximum:
                raise ValueError(f"{self.name}: {value!r} is not within {annotation.minimum} and {annotation.maximum}")
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def is_in(self, node: Any) -> bool:
        return self.is_node or node.GetParameter(self.name) != ""


class _Connector:
    """Keeps one widget and one parameter equal."""

    def __init__(self, widget: Any, parameter: _Parameter, on_changed: Any) -> None:
        self.widget, self.parameter = widget, parameter
        kind = widget.className()
        if kind == "qMRMLNodeComboBox":
            assert parameter.is_node
            widget.nodeTypes = [parameter.kind.__name__]
            self.signal, self.read, self.write = widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
        elif kind == "QComboBox" and issubclass(parameter.kind, enum.Enum):
            self._members = list(parameter.kind)
            widget.clear()
            for member in self._members:
                widget.addItem(getattr(parameter.kind, "label", lambda m: m.name)(member))
            self.signal = widget.currentIndexChanged
            self.read = lambda: self._members[widget.currentIndex]
            self.write = lambda value: widget.setCurrentIndex(self._members.index(value))
        elif kind == "QCheckBox":
            self.signal, self.read, self.write = widget.toggled, lambda: widget.checked, widget.setChecked
        elif (kind, parameter.kind) in {("QSpinBox", int), ("ctkSliderWidget", float)}:
            bounds = next(a for a in parameter.annotations if isinstance(a, WithinRange))
            widget.minimum, widget.maximum = bounds.minimum, bounds.maximum
            self.signal, self.read, self.write = widget.valueChanged, lambda: widget.value, widget.setValue
        else:
            raise RuntimeError(f"no connector between {kind} and {parameter.kind}")
        self.callback = lambda *_: on_changed(self)
        self.signal.connect(self.callback)

    def disconnect(self) -> None:
        self.signal.disconnect(self.callback)


class _Wrapper:
    """What ``@parameterNodeWrapper`` adds to a class."""

    allParameters: dict[str, _Parameter]

    def __init__(self, node: Any) -> None:
        self.parameterNode = node
        self._guis: dict[int, tuple[list[_Connector], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameter.is_in(node):
                parameter.write(node, parameter.default)

    def connectGui(self, gui: Any) -> int:
        names = ((widget, widget.property("SlicerParameterName")) for widget in gui.__dict__.values())
        connectors = [_Connector(w, self.allParameters[name], self._from_gui) for w, name in names if name]
        tag = len(self._guis) + 1
        self._guis[tag] = (connectors, self.AddObserver("ModifiedEvent", lambda *_: self._to_gui()))
        self._to_gui()
        return tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._guis.pop(tag, ([], 0))
        for connector in connectors:
            connector.disconnect()
        if observer:
            self.RemoveObserver(observer)

    def _from_gui(self, connector: _Connector) -> None:
        if not self._updating:
            connector.parameter.write(self.parameterNode, connector.read())

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in self._guis.values():
                for connector in connectors:
                    connector.write(connector.parameter.read(self.parameterNode))
        finally:
            self._updating = False

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was: int) -> None:
        self.parameterNode.EndModify(was)


def parameterNodeWrapper(cls: type) -> type:
    """Turn an annotated class into a typed view of a parameter node."""
    parameters = {}
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        _, annotations = _plain(kind)
        declared = [a.value for a in annotations if isinstance(a, Default)]
        base = _plain(kind)[0]
        first = next(iter(base)) if isinstance(base, type) and issubclass(base, enum.Enum) else None
        is_node = isinstance(base, type) and issubclass(base, slicer.vtkMRMLNode)
        fallback = first if first is not None else (None if is_node else base())
        parameters[name] = _Parameter(name, kind, getattr(cls, name, declared[0] if declared else fallback))
    members = {"allParameters": parameters, "__doc__": cls.__doc__}
    for name, parameter in parameters.items():
        members[name] = property(
            lambda self, p=parameter: p.read(self.parameterNode),
            lambda self, value, p=parameter: p.write(self.parameterNode, value),
        )
    own = {name: value for name, value in vars(cls).items() if callable(value)}
    return type(cls.__name__, (_Wrapper,), {**own, **members})


def module() -> ModuleType:
    """Return ``slicer.parameterNodeWrapper``."""
    made = ModuleType("slicer.parameterNodeWrapper")
    made.parameterNodeWrapper, made.Choice, made.Default = parameterNodeWrapper, Choice, Default
    made.WithinRange = WithinRange
    return made
