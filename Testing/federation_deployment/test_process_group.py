"""How a role's processes end."""

import subprocess
import sys

import pytest

LEFT_BEHIND = """
import sys, threading
from FedSegCore.federation import process_group

def main():
    threading.Thread(target=threading.Event().wait).start()  # one that never ends, and that Python waits for
    print("said", flush=True)
    {ending}

process_group._LAST_WORDS_S = 0.5
process_group.end_with(main)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('words')", 1),
        ("raise ValueError('x')", 1),
    ],
)
def test_a_process_ends_with_its_work_whatever_threads_are_left(ending: str, code: int) -> None:
    script = LEFT_BEHIND.format(ending=ending)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, "said"), done.stderr
