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
        for owner, tag in self._tags:
            owner.RemoveObserver(tag)
        self._scene, self._tags = scene, []
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


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A titled frame that folds."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._folded: list[QtWidgets.QWidget] = []

    def _get_text(self) -> str:
        return self.title()

    def _set_text(self, text: str) -> None:
        self.setTitle(text)

    text = QtCore.Property(str, _get_text, _set_text)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            direct = QtCore.Qt.FindChildOption.FindDirectChildrenOnly
            children = self.findChildren(QtWidgets.QWidget, options=direct)
            self._folded = [child for child in children if not child.isHidden()]
        for child in self._folded:
            child.setHidden(collapsed)
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


for _kind in (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkPathLineEdit):
    custom_classes[_kind.__name__] = _kind
