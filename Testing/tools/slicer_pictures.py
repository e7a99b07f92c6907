"""Takes pictures of the module in 3D Slicer itself, with the demo's models: run by Slicer, which ends with it.

    fedseg demo --out DEMO
    Slicer --python-script Testing/tools/slicer_pictures.py --demo DEMO [--runtime PYTHON] --out docs/images

Slicer must know the module (Additional module paths). Written are slicer-segment.png, slicer-see.png and
slicer-federation.png. Look at them before they are committed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import qt
import slicer

SIZE = (1400, 940)
LIMIT_S = 300.0


@contextmanager
def settings_as_they_were() -> Iterator[None]:
    """Leave the module's settings in Slicer as they are now."""
    stored = qt.QSettings()
    before = {name: stored.value(name) for name in stored.allKeys() if name.startswith("FedSegSlicer/")}
    try:
        yield
    finally:
        for name in stored.allKeys():
            if name.startswith("FedSegSlicer/"):
                stored.remove(name)
        for name, value in before.items():
            stored.setValue(name, value)


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Let Slicer work until ``true()``; RuntimeError after five minutes."""
    until = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not happen")
        slicer.app.processEvents()
        time.sleep(0.02)


def settle(seconds: float = 2.0) -> None:
    """Let what is on its way be drawn."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "drawing")


def take(path: Path) -> None:
    """Write a picture of Slicer's window."""
    settle()
    slicer.util.forceRenderAllViews()
    settle(0.5)
    if not slicer.util.mainWindow().grab().save(str(path)):
        raise RuntimeError(f"{path} cannot be written")


def segment(panel: object, image: Path) -> None:
    """Segment a new patient of the demo, its volume in all views."""
    volume = slicer.util.loadVolume(str(image))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    panel.ui.inputSelector.setCurrentNode(volume)
    wait_until(lambda: panel.ui.segmentButton.enabled, "getting ready to segment")
    panel.ui.segmentButton.click()
    wait_until(panel.ui.undoButton.isVisible, "the result")


def see(panel: object) -> None:
    """Show samples of that volume side by side, outlined by the result."""
    ui = panel.ui
    ui.tabWidget.setCurrentWidget(ui.seeTab)
    ui.seeVolumeSelector.setCurrentNode(ui.inputSelector.currentNode())
    ui.seeSegmentationSelector.setCurrentNode(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0])
    settle(0.5)
    ui.seeShowButton.click()
    wait_until(lambda: ui.seeKeepButton.enabled and not ui.seeStopButton.enabled, "all samples")


def follow(panel: object, site: Path) -> None:
    """Show what a site of the demo trained, with its plot."""
    ui = panel.ui
    ui.tabWidget.setCurrentWidget(ui.federationTab)
    ui.fedSitePathEdit.currentPath = str(site)
    wait_until(lambda: site.name in ui.fedStateLabel.text and ui.fedPlotButton.enabled, "the rounds of the site")
    ui.fedPlotButton.click()


def take_all(demo: Path, runtime: str, out: Path) -> None:
    """Take all pictures."""
    slicer.util.mainWindow().resize(*SIZE)
    slicer.util.selectModule("FedSegSlicer")
    panel = slicer.util.getModuleWidget("FedSegSlicer")
    panel.ui.releasesPathEdit.currentPath = str(demo / "releases")
    if runtime:
        panel.ui.runtimePathEdit.currentPath = runtime
    panel.ui.settingsCollapsibleButton.collapsed = True
    segment(panel, demo / "unseen" / "ct-0.nrrd")
    take(out / "slicer-segment.png")
    see(panel)
    take(out / "slicer-see.png")
    follow(panel, demo / "federation" / "sites" / "ct-north")
    take(out / "slicer-federation.png")


def main() -> int:
    """Run the command line; Slicer passes what follows the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path, required=True, help="folder that 'fedseg demo' made")
    parser.add_argument("--runtime", default="", help="the runtime's Python, if the module does not find it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    asked, _of_slicer = parser.parse_known_args()
    try:
        with settings_as_they_were():
            take_all(asked.demo, asked.runtime, asked.out)
    except Exception as error:  # noqa: BLE001 - Slicer would go on without a word
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    slicer.util.exit(main())
