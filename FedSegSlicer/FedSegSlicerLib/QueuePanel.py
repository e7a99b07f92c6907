"""The part of the Segment tab for several volumes: a list to mark, how far each is, cancel all."""

from typing import TYPE_CHECKING

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from .QtTimer import callLater
from .SegmentQueue import Decide, Entry, SegmentQueue, entriesOfScene
from .Settings import RELEASES_FOLDER, readSetting
from .Tables import fitTable, prepareTable

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ROWS = 8
"""Rows shown at once; more are scrolled."""


class QueuePanel:
    """Drives the widgets below "Several volumes".

    Args:
        ui: the widgets of FedSegSlicer.ui by name.
        queue: what runs them.
        decide: which model a volume gets.
        device: returns where to compute.
        isLooking: returns whether it is still being found out which models there are.
    """

    def __init__(
        self,
        ui: object,
        queue: SegmentQueue,
        decide: Decide,
        device: "Callable[[], str]",
        isLooking: "Callable[[], bool]",
    ) -> None:
        self.ui = ui
        self.queue = queue
        self._decide = decide
        self._device = device
        self._isLooking = isLooking
        self._entries: list[Entry] = []
        self._known: dict[str, Entry] = {}
        self._leftOut: set[str] = set()
        prepareTable(self.ui.queueTable, 0, MOST_ROWS)
        # What cannot be segmented says why, in a sentence: both columns wrap their words.
        self.ui.queueTable.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.Stretch)
        self.ui.queueCollapsibleButton.collapsed = True
        self.ui.queueCollapsibleButton.connect("contentsCollapsed(bool)", self._onFolded)
        self.ui.queueButton.connect("clicked(bool)", self._onButton)
        self.ui.queueAllButton.connect("clicked(bool)", lambda _checked: self._markEach(True))
        self.ui.queueNoneButton.connect("clicked(bool)", lambda _checked: self._markEach(False))
        self.ui.queueTable.connect("itemChanged(QTableWidgetItem*)", lambda _item: self._onMarked())
        queue.changed.connect(self._onChanged)
        self._isStale = False
        scene = slicer.mrmlScene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent)
        self._sceneObservers = [scene.AddObserver(event, self._onNode) for event in events]
        self.update()

    def cleanup(self) -> None:
        """Let go of the queue and of the scene."""
        self.queue.changed.disconnect(self._onChanged)
        for tag in self._sceneObservers:
            slicer.mrmlScene.RemoveObserver(tag)
        self._sceneObservers = []

    def refresh(self) -> None:
        """List the scene's images again, unless some are being segmented.

        New ones are marked; of the others it is kept whether they were, and what became of them.
        """
        if not self.queue.isRunning:
            known = self._known
            self._entries = [
                known[now.volumeId].asNow(now) if now.volumeId in known else now for now in entriesOfScene()
            ]
            self._known = {entry.volumeId: entry for entry in self._entries}
            self._fill()
        self.update()

    def forget(self) -> None:
        """Forget everything, as when the scene is closed."""
        self._entries = []
        self._known.clear()
        self._leftOut.clear()
        self._fill()
        self.update()

    def update(self) -> None:
        """Say what the button does now."""
        button = self.ui.queueButton
        running, marked = self.queue.isRunning, self._marked()
        reason = "" if running else self._reasonNotReady(marked)
        what = _("Segment one volume") if len(marked) == 1 else _("Segment {count} volumes").format(count=len(marked))
        self.ui.queueAllButton.enabled = not running and len(marked) < len(self._entries)
        self.ui.queueNoneButton.enabled = not running and bool(marked)
        button.text = _("Cancel all") if running else what
        button.enabled = not reason
        button.toolTip = reason or (
            _("Stop the present volume and leave out the rest; what is finished stays.")
            if running
            else _(
                "Segment the marked images one after the other, each with the newest model for what it is; what is "
                "chosen above counts only where that cannot be told."
            )
        )

    def _reasonNotReady(self, marked: list[Entry]) -> str:
        if not self._entries:
            return _("There is no image in the scene.")
        if not marked:
            return _("Mark the images to segment.")
        if self.queue.logic.isBusy:
            return _("A volume is being segmented; wait until it is finished, or cancel it.")
        if not readSetting(RELEASES_FOLDER):
            return _("Choose the folder of your federation's models under Settings.")
        return _("Looking for models…") if self._isLooking() else ""

    def _onFolded(self, folded: bool) -> None:
        if not folded:
            self.refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNode(self, _scene: object, _event: str, node: "slicer.vtkMRMLNode") -> None:
        """List the images again once what is being loaded or removed has its name, its frames and its place."""
        isImage = node.IsA("vtkMRMLVolumeNode") or node.IsA("vtkMRMLSequenceBrowserNode")
        if isImage and not self._isStale:
            self._isStale = True
            callLater(0, self._listAgain)

    def _listAgain(self) -> None:
        self._isStale = False
        if self._sceneObservers and not self.ui.queueCollapsibleButton.collapsed:
            self.refresh()

    def _onButton(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The volumes could not be segmented.")):
            if self.queue.isRunning:
                self.queue.cancelAll()
                return
            self._entries = [entry.again() for entry in self._marked()]
            self._known.update({entry.volumeId: entry for entry in self._entries})
            self._fill()
            self.queue.start(self._entries, self._decide, readSetting(RELEASES_FOLDER), self._device())
            self.update()

    def _markEach(self, isMarked: bool) -> None:
        self._leftOut = set() if isMarked else {entry.volumeId for entry in self._entries}
        self._fill()
        self.update()

    def _onMarked(self) -> None:
        marked = {entry.volumeId for entry in self._marked()}
        self._leftOut -= marked
        self._leftOut |= {entry.volumeId for entry in self._entries} - marked
        self.update()

    def _onChanged(self) -> None:
        blocked = self.ui.queueTable.blockSignals(True)  # words are no marks
        try:
            for row, entry in enumerate(self._entries):
                item = self.ui.queueTable.item(row, 1)
                if item is not None:
                    _say(item, entry)
        finally:
            self.ui.queueTable.blockSignals(blocked)
        fitTable(self.ui.queueTable, MOST_ROWS)
        self.update()

    def _marked(self) -> list[Entry]:
        table = self.ui.queueTable
        return [
            entry
            for row, entry in enumerate(self._entries)
            if table.item(row, 0) is not None and table.item(row, 0).checkState() == qt.Qt.Checked
        ]

    def _fill(self) -> None:
        table, entries = self.ui.queueTable, self._entries
        blocked = table.blockSignals(True)
        try:
            table.setRowCount(len(entries))
            for row, entry in enumerate(entries):
                count = len(entry.parts)
                moments = _(" ({count} moments)").format(count=count) if count > 1 else ""
                name = qt.QTableWidgetItem(entry.name + moments)
                name.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled)
                name.setCheckState(qt.Qt.Unchecked if entry.volumeId in self._leftOut else qt.Qt.Checked)
                table.setItem(row, 0, name)
                table.setItem(row, 1, qt.QTableWidgetItem(""))
                _say(table.item(row, 1), entry)
        finally:
            table.blockSignals(blocked)
        fitTable(table, MOST_ROWS)


def _say(item: "qt.QTableWidgetItem", entry: Entry) -> None:
    item.setText(entry.words())
    item.setToolTip(entry.error.remedy if entry.error is not None else "")
