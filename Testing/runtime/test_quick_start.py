"""A process's module is imported without Python's collector running, and then run with it."""

import gc
import os
import subprocess
from pathlib import Path

from FedSegCore.common import quick_start

MODULE = """
import gc, sys
at_import = gc.isenabled()

def main():
    print(at_import, gc.isenabled(), gc.get_freeze_count() > 1000, sys.argv)
    sys.exit(7)
"""


def test_the_collector_waits_for_the_imports(tmp_path: Path) -> None:
    module = tmp_path / "some_module.py"
    module.write_text(MODULE)
    root = Path(quick_start.__file__).parents[2]
    command = [*quick_start.command("some_module"), "--folder", "here"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, root)))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == "False True True ['some_module', '--folder', 'here']\n"


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    with quick_start.without_collecting():
        assert not gc.isenabled()
        with quick_start.without_collecting():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
