"""Processes of ours start without the packages that MONAI would import and nothing here uses."""

import subprocess
import sys

LEAN = """
import sys
from FedSegCore.common.monai_import import import_monai
import_monai()
import FedSegCore.federation.site.trainer_server
import FedSegCore.inference.segment_file
imported = set(sys.modules)
import ignite.engine, matplotlib.pyplot, scipy.signal  # who asks for them gets them all the same
print(" ".join(imported))
"""

ENTRY = "import sys, FedSegCore.federation.site.trainer_process; print(' '.join(sys.modules))"


def imported_by(code: str) -> set[str]:
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_trainer_starts_without_what_nothing_here_uses():
    imported = imported_by(LEAN)
    assert {"monai", "torch", "FedSegCore.learning.trainer"} <= imported
    assert imported.isdisjoint({"ignite", "torch.distributed.fsdp", "matplotlib.pyplot", "scipy.signal"})


def test_the_trainers_entry_loads_nothing_heavy_before_it_knows_its_folder():
    assert {"torch", "monai"}.isdisjoint(imported_by(ENTRY))
