"""Rounds as Slicer's own tables and plots; they follow the site and are not saved with the scene."""

from math import isfinite
from typing import Any

import slicer
from slicer.i18n import tr as _

NAME = "FedSeg rounds"

ROOM_FOR_LEGEND = 1.3
"""How far the axis reaches beyond the highest value: Slicer draws the legend over the upper right of the curves."""

LOSS_COLOR = [128, 128, 128]


class RoundPlots:
    """Keeps a table node of rounds, a plot series for loss and for each label's Dice, and a chart of them.

    Attributes:
        colors: label to red, green, blue (0 to 255) of its curve; a label that has none gets one nobody has.
    """

    def __init__(self) -> None:
        self.colors: dict[str, list[int]] = {}
        self._table = self._chart = None
        self._series: dict[str, Any] = {}

    def update(self, rounds: list[dict[str, Any]]) -> None:
        """Show these rounds, if they are shown at all."""
        if self._isShown():
            self._fill(rounds)

    def show(self, rounds: list[dict[str, Any]]) -> None:
        """Make the nodes where there are none, and show the chart in the layout where there is a main window."""
        if not self._isShown():
            self.clear()
            self._table = self._add("vtkMRMLTableNode", NAME)
            self._chart = self._add("vtkMRMLPlotChartNode", NAME)
            self._chart.SetTitle(_("Rounds at this site"))
            self._chart.SetXAxisTitle(_("Round"))
            self._chart.SetYAxisTitle(_("Loss, Dice"))
        self._fill(rounds)
        plots = getattr(slicer.modules, "plots", None)
        if plots is not None and slicer.app.layoutManager() is not None:
            plots.logic().ShowChartInLayout(self._chart)

    def clear(self) -> None:
        """Remove the nodes."""
        for node in (self._chart, *self._series.values(), self._table):
            if node is not None and node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        self._table = self._chart = None
        self._series = {}

    def _isShown(self) -> bool:
        nodes = (self._table, self._chart)
        return all(node is not None and node.GetScene() is not None for node in nodes)

    def _fill(self, rounds: list[dict[str, Any]]) -> None:
        import vtk

        colors: list[list[int] | None] = [LOSS_COLOR]
        columns: dict[str, list[float]] = {
            _("Round"): [float(entry["round_number"]) for entry in rounds],
            _("Loss"): [_number(entry["loss"]) for entry in rounds],
        }
        for label in labelsOf(rounds):
            colors.append(self.colors.get(label))
            name = _("Dice, {label}").format(label=label)
            columns[name] = [_number(entry["dice"].get(label)) for entry in rounds]
        modified = self._table.StartModify()
        self._table.RemoveAllColumns()
        for name, values in columns.items():
            array = vtk.vtkDoubleArray()
            array.SetName(name)
            for value in values:
                array.InsertNextValue(value)
            self._table.AddColumn(array)
        self._table.EndModify(modified)
        x, *shown = columns
        highest = max((value for name in shown for value in columns[name] if isfinite(value)), default=1.0)
        # Slicer finds an automatic range once, when a curve is added, and not when its table grows.
        numbers = columns[x] or [1.0]
        self._chart.SetXAxisRangeAuto(False)
        self._chart.SetXAxisRange(min(numbers), max(max(numbers), min(numbers) + 1.0))
        self._chart.SetYAxisRangeAuto(False)
        self._chart.SetYAxisRange(0.0, ROOM_FOR_LEGEND * max(highest, 1.0))
        for number, name in enumerate(shown):
            if name not in self._series:
                self._series[name] = self._newSeries(name, x, isLoss=number == 0)
                if (color := colors[number]) is None:
                    self._series[name].SetUniqueColor()
                else:
                    self._series[name].SetColor(*(part / 255 for part in color))

    def _newSeries(self, name: str, x: str, isLoss: bool) -> "slicer.vtkMRMLPlotSeriesNode":
        series = self._add("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(self._table.GetID())
        series.SetXColumnName(x)
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        # A round alone is a point; lines alone would not show it.
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        if isLoss:
            series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleDash)
        self._chart.AddAndObservePlotSeriesNodeID(series.GetID())
        return series

    @staticmethod
    def _add(kind: str, name: str) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
        node.SetSaveWithScene(False)
        return node


def labelsOf(rounds: list[dict[str, Any]]) -> list[str]:
    """Return the labels that any round was scored on, in the order in which they first appear."""
    return list(dict.fromkeys(label for entry in rounds for label in entry["dice"]))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
