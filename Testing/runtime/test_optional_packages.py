"""A trainer starts without the packages that MONAI would import and nothing here uses."""

import subprocess
import sys

START = """
import sys
from FedSegCore.common.optional_packages import hide_unused_packages
hide_unused_packages()
import FedSegCore.federation.site.trainer_server
import FedSegCore.reporting.overlays  # a worker draws pictures all the same
print(" ".join(sys.modules))
"""


def test_a_trainer_starts_without_what_nothing_here_uses():
    started = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    imported = set(started.stdout.split())
    assert {"monai", "torch", "FedSegCore.learning.trainer"} <= imported
    assert imported.isdisjoint({"torch.distributed.fsdp", "ignite.engine"})


def test_the_trainers_entry_waits_for_its_folder_before_it_loads_anything():
    code = "import sys, FedSegCore.federation.site.trainer_process as _; print(' '.join(sys.modules))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "monai"}.isdisjoint(started.stdout.split())
