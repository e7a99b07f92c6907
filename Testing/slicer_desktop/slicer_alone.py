"""Slicer's part alone: the module opened and a volume segmented, in an interpreter that has no torch and no Flower.

    PYTHON Testing/slicer_desktop/slicer_alone.py WORKER_PYTHON RELEASES IMAGE

PYTHON plays Slicer's part and needs trame-slicer[standalone] and PySide6-Essentials only (Slicer's own is 3.12);
WORKER_PYTHON is the runtime. Whatever belongs to that is refused here, also where it happens to be installed. Prints
one JSON object.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOREIGN = frozenset({"torch", "flwr", "monai", "safetensors", "pydantic", "cryptography", "FedSegCore"})


class Refuse:
    """Finds no module of the runtime."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name.partition(".")[0] in FOREIGN:
            raise ImportError(f"{name} is not in Slicer's Python")


def main() -> None:
    """Open the module, segment the image, and tell what came of it."""
    worker, releases, image = sys.argv[1:4]
    sys.meta_path.insert(0, Refuse())
    sys.path[:0] = [str(HERE.parents[1] / "FedSegSlicer"), str(HERE)]
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        from host import application

        application.start(Path(temporary))
        print(json.dumps(segment(worker, releases, image)))  # noqa: T201


def segment(worker: str, releases: str, image: str) -> dict[str, object]:
    """Return what the Segment tab shows after one click."""
    import slicer
    from FedSegSlicerLib.SegmentLogic import State
    from FedSegSlicerLib.Settings import RELEASES_FOLDER, RUNTIME, writeSetting
    from scene_helpers import load_volume, wait_until

    import FedSegSlicer as module

    writeSetting(RELEASES_FOLDER, releases)
    writeSetting(RUNTIME, worker)
    load_volume(Path(image), "CT abdomen")
    widget = module.FedSegSlicerWidget()
    widget.setup()
    widget.enter()
    problems: list[str] = []
    logic = widget.segmentTab.logic
    logic.failed.connect(lambda error: problems.append(error.code))
    wait_until(lambda: widget.ui.segmentButton.enabled, 240.0)
    widget.ui.segmentButton.click()
    wait_until(lambda: logic.state is State.IDLE, 240.0)
    table = widget.ui.resultTable
    rows = [[table.item(row, column).text() for column in range(2)] for row in range(table.rowCount)]
    found = {
        "python": list(sys.version_info[:2]),
        "rows": rows,
        "problems": problems,
        "foreign": sorted(FOREIGN & set(sys.modules)),
        "segments": slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"),
    }
    widget.cleanup()
    return found


if __name__ == "__main__":
    main()
