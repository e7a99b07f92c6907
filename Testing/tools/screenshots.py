"""Renders every tab and state of the Slicer module into docs/images/module, by the tests that go through them.

    python Testing/tools/screenshots.py

Which pictures there are stands in docs/slicer-module.md: every one that the page shows is written anew, and one that no
test has made is an error. Look at them before they are committed.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "slicer-module.md"
PICTURES = ROOT / "docs" / "images" / "module"
MOST_BYTES = 100_000

_COLOURS = 128
_FRAME = 16
"""Pixels at both sides that belong to the frame of the tabs."""
_MARGIN = 16
"""Pixels left below the last widget."""
_TESTS = (
    "test_runtime_panel.py::test_first_use_with_pictures",
    "test_runtime_panel.py::test_cancelled_and_failed_installations_say_so",
    "test_result_panel.py::test_pictures_of_every_state_have_no_clipped_text",
    "test_see_tab.py::test_pictures_of_every_state_have_no_clipped_text",
    "test_federation_tab.py::test_from_invitation_to_cases_settings_and_journal",
    "test_federation_states.py",
    "test_release_news.py",
)


def wanted() -> list[str]:
    """Return the file names of the pictures that the page shows, in its order."""
    return re.findall(r"images/module/([a-z0-9-]+\.png)", PAGE.read_text(encoding="utf-8"))


def render(folder: Path) -> None:
    """Let the tests write their pictures into ``folder``; what they check is checked, too."""
    tests = [str(ROOT / "Testing" / "slicer_desktop" / test) for test in _TESTS]
    environment = {**os.environ, "FEDSEG_PICTURES": str(folder)}
    subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=ROOT, env=environment, check=True)


def shrink(picture: Path, target: Path) -> None:
    """Write a picture without the empty part below, and with few colours: enough for widgets and grey images."""
    with Image.open(picture) as image:
        shown = image.convert("RGB")
    pixels = np.asarray(shown)[:, _FRAME:-_FRAME]
    drawn = np.flatnonzero((pixels != pixels[:, :1]).any((1, 2)))
    bottom = min(shown.height, int(drawn[-1]) + _MARGIN)
    shown.crop((0, 0, shown.width, bottom)).quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Write all pictures of the page."""
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder))
        made = {path.name: path for path in Path(folder).rglob("*.png")}
        names = wanted()
        if missing := [name for name in names if name not in made]:
            raise SystemExit(f"No test has made {', '.join(missing)}.")
        PICTURES.mkdir(parents=True, exist_ok=True)
        for old in PICTURES.glob("*.png"):
            old.unlink()
        for name in names:
            shrink(made[name], PICTURES / name)
            size = (PICTURES / name).stat().st_size
            if size > MOST_BYTES:
                raise SystemExit(f"{name} has {size} bytes, more than {MOST_BYTES}.")


if __name__ == "__main__":
    main()
