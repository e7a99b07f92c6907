"""Curves of an experiment as an SVG file beside the page."""

from typing import Any

from FedSegCore.experiments.kept import Finished
from FedSegCore.reporting.plots import curves

_INK = "#808080"
"""Grey that reads on white and on black: a picture file does not know the page's colour."""


def curves_picture(one: Finished) -> str | None:
    """Return training loss and, where measured, each label's validation Dice over the rounds, one line per setting.

    Drawn are the settings that goals name, means over sites and seeds, one diagram per group. None without curves.
    """
    config = one.config
    named = {config.default, config.reference}
    named |= {name for target in config.targets for name in (target.setting, *target.against)}
    points: list[dict[str, Any]] = []
    for run in one.results["runs"]:
        if run["setting"] in named:
            for row in run["curves"]:
                facts = {"round": row["round"], "setting": one.titles[run["setting"]]}
                points.append({**facts, "panel": f"{row['group']}: training loss", "value": row["loss"]})
                for label, dice in row["scores"].items():
                    points.append({**facts, "panel": f"{row['group']}: {label}, validation Dice", "value": dice})
    if not points:
        return None
    dice = {point["panel"]: (0.0, 1.0) for point in points if point["panel"].endswith("Dice")}
    drawing = curves(
        points, x="round", y="value", panel="panel", line="setting", x_label="round", y_label="loss, Dice", columns=2,
        y_range=dice,
    )  # fmt: skip
    return drawing.replace("<svg ", f'<svg color="{_INK}" ', 1)
