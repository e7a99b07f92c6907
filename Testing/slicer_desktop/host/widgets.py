"""Stand-ins for the MRML and CTK widgets the module uses, bound to the real scene."""

from typing import Any

from PySide6 import QtCore, QtWidgets

from .pythonqt import custom_classes


class qMRMLWidget(QtWidgets.QWidget):
    """Hands its scene to the widgets the .ui file names."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.sceneReceivers: list[Any] = []
        self._scene: Any = None
        self.isEntered = False

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for receiver in self.sceneReceivers:
            receiver.setMRMLScene(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the scene's nodes of some classes, follows the scene, selects a node."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._types: list[str] = []
        self._flags = {"noneEnabled": False, "addEnabled": True, "removeEnabled": True, "showChildNodeTypes": True}
        self._tags: list[tuple[Any, int]] = []
        self._current_id = ""
        observed = self._tags
        self.destroyed.connect(lambda *_: _stop_observing(observed))
        self.activated.connect(lambda _: self._choose(self.currentData()))

    def _get_types(self) -> list[str]:
        return self._types

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._refresh()

    nodeTypes = QtCore.Property("QStringList", _get_types, _set_types)

    def _flag(name: str) -> Any:
        def read(self: "qMRMLNodeComboBox") -> bool:
            return self._flags[name]

        def write(self: "qMRMLNodeComboBox", value: bool) -> None:
            self._flags[name] = value
            self._refresh()

        return QtCore.Property(bool, read, write)

    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    showChildNodeTypes = _flag("showChildNodeTypes")

    def setMRMLScene(self, scene: Any) -> None:
        _stop_observing(self._tags)
        self._scene = scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                self._tags.append((scene, scene.AddObserver(event, lambda *_: self._refresh())))
        self._refresh()

    def mrmlScene(self) -> Any:
        return self._scene

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current_id) if self._scene is not None and self._current_id else None

    def setCurrentNode(self, node: Any) -> None:
        self._choose(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        self._choose(node_id)

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        found = [self._scene.GetNthNodeByClass(n, kind) for kind in self._types
                 for n in range(self._scene.GetNumberOfNodesByClass(kind))]  # fmt: skip
        exact = [node for node in found if self._flags["showChildNodeTypes"] or node.GetClassName() in self._types]
        return [node for node in exact if not node.GetHideFromEditors()]

    def _refresh(self) -> None:
        nodes = self._nodes()
        with QtCore.QSignalBlocker(self):
            self.clear()
            if self._flags["noneEnabled"]:
                self.addItem("None", "")
            for node in nodes:
                self.addItem(node.GetName(), node.GetID())
        known = {node.GetID() for node in nodes}
        fallback = "" if self._flags["noneEnabled"] or not nodes else nodes[0].GetID()
        self._choose(self._current_id if self._current_id in known else fallback)

    def _choose(self, node_id: str | None) -> None:
        changed = (node_id or "") != self._current_id
        self._current_id = node_id or ""
        with QtCore.QSignalBlocker(self):
            self.setCurrentIndex(self.findData(self._current_id))
        if changed:
            self.currentNodeChanged.emit(self.currentNode())


def _stop_observing(tags: list[tuple[Any, int]]) -> None:
    """Take away observers and forget them: one that outlived its widget would fail with every later change."""
    while tags:
        owner, tag = tags.pop()
        owner.RemoveObserver(tag)


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A titled frame that folds: what is in it is hidden meanwhile, and shown again if it was meant to be shown.

    It is never narrower than what is in it would like to be.
    """

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = self._is_folding = False
        self._text = ""
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        if event.type() == QtCore.QEvent.Type.ChildAdded and event.child().isWidgetType():
            event.child().installEventFilter(self)
        super().childEvent(event)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        """Note what is shown and hidden by others, and keep it hidden while folded."""
        shown = event.type() == QtCore.QEvent.Type.ShowToParent
        if not self._is_folding and (shown or event.type() == QtCore.QEvent.Type.HideToParent):
            child.setProperty("visibilityToParent", shown)
            if shown and self._collapsed:
                self._set_visible(child, False)
        return False

    def _set_visible(self, child: QtWidgets.QWidget, visible: bool) -> None:
        self._is_folding, is_meant = True, child.property("visibilityToParent") is not False
        child.setVisible(visible and is_meant)
        if is_meant:  # so that Qt tells of the next setVisible, also where it asks for what is so already
            child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
        self._is_folding = False

    def _get_text(self) -> str:
        return self._text

    def _set_text(self, text: str) -> None:
        self._text = text
        self._show_title()

    def _show_title(self) -> None:
        self.setTitle(f"{'▸' if self._collapsed else '▾'} {self._text}")
        self.setFlat(self._collapsed)

    text = QtCore.Property(str, _get_text, _set_text)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        direct = QtCore.Qt.FindChildOption.FindDirectChildrenOnly
        for child in self.findChildren(QtWidgets.QWidget, options=direct):
            self._set_visible(child, not collapsed)
        self._show_title()
        self.contentsCollapsed.emit(collapsed)

    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path and a button to browse."""

    currentPathChanged = QtCore.Signal(str)
    # The values of ctkPathLineEdit's flags.
    Files, Dirs = 0x002, 0x001

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit, browse = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        browse.setText("…")
        layout.addWidget(self._edit)
        layout.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged)
        self._filters = self.Files

    def _get_path(self) -> str:
        return self._edit.text()

    def _set_path(self, path: str) -> None:
        self._edit.setText(path)

    currentPath = QtCore.Property(str, _get_path, _set_path)

    def _get_filters(self) -> int:
        return self._filters

    def _set_filters(self, filters: int) -> None:
        self._filters = filters

    filters = QtCore.Property(int, _get_filters, _set_filters)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a number beside it."""

    valueChanged = QtCore.Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._box.valueChanged.connect(self._changed)
        self._slider.valueChanged.connect(lambda steps: self._box.setValue(self._box.minimum() + steps * self._step()))

    def _step(self) -> float:
        return self._box.singleStep()

    def _changed(self, value: float) -> None:
        with QtCore.QSignalBlocker(self._slider):
            self._slider.setMaximum(round((self._box.maximum() - self._box.minimum()) / self._step()))
            self._slider.setValue(round((value - self._box.minimum()) / self._step()))
        self.valueChanged.emit(value)

    def _of_box(read: str, write: str, kind: type) -> Any:
        return QtCore.Property(
            kind, lambda self: getattr(self._box, read)(), lambda self, value: getattr(self._box, write)(value)
        )

    value = _of_box("value", "setValue", float)
    minimum = _of_box("minimum", "setMinimum", float)
    maximum = _of_box("maximum", "setMaximum", float)
    singleStep = _of_box("singleStep", "setSingleStep", float)
    decimals = _of_box("decimals", "setDecimals", int)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)


class ctkRangeWidget(QtWidgets.QWidget):
    """Two numbers with a slider between them that has two handles (here: is only drawn)."""

    valuesChanged = QtCore.Signal(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._low, self._high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        self._bar = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        for part in (self._low, self._bar, self._high):
            layout.addWidget(part, 1 if part is self._bar else 0)
        self.setFocusProxy(self._low)
        for box in (self._low, self._high):
            box.valueChanged.connect(lambda *_: self._changed())

    def _changed(self) -> None:
        self._bar.setValue(self._bar.maximum())
        self.valuesChanged.emit(self._low.value(), self._high.value())

    def _of_both(read: str, write: str, kind: type) -> Any:
        def set_both(self: Any, value: Any) -> None:
            for box in (self._low, self._high):
                getattr(box, write)(value)

        return QtCore.Property(kind, lambda self: getattr(self._low, read)(), set_both)

    minimum = _of_both("minimum", "setMinimum", float)
    maximum = _of_both("maximum", "setMaximum", float)
    singleStep = _of_both("singleStep", "setSingleStep", float)
    decimals = _of_both("decimals", "setDecimals", int)

    minimumValue = QtCore.Property(
        float, lambda self: self._low.value(), lambda self, value: self.setValues(value, self._high.value())
    )
    maximumValue = QtCore.Property(
        float, lambda self: self._high.value(), lambda self, value: self.setValues(self._low.value(), value)
    )

    def setValues(self, low: float, high: float) -> None:
        before = self._low.value(), self._high.value()
        with QtCore.QSignalBlocker(self._low), QtCore.QSignalBlocker(self._high):
            self._low.setValue(low)
            self._high.setValue(high)
        if before != (self._low.value(), self._high.value()):
            self._changed()


for _kind in (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkPathLineEdit, ctkRangeWidget, ctkSliderWidget):
    custom_classes[_kind.__name__] = _kind
