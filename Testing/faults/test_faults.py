"""Seeded trainings by real processes that are killed, stopped, cut off, out of disk, out of time or damaged.

Twenty by default, in two federations side by side, one with networks of its own, one behind a proxy.
``FEDSEG_FAULT_RUNS=200`` or ``many_runs.py`` for more.
"""

import os
from pathlib import Path

import pytest
from many_runs import run_all, words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux: limits of running processes"),
]

SEEDS = list(range(int(os.environ.get("FEDSEG_FAULT_RUNS", "20"))))
SITES = [1, 2]
FAULTS = [1, 2]
"""Of each run of a federation; two sites at once are worth more of the suite's time than one."""


def test_every_run_ends_complete_whatever_happens(tmp_path: Path) -> None:
    told: list[str] = []
    verdicts = run_all(tmp_path, SEEDS, SITES, FAULTS, told=lambda verdict: told.append(words(verdict)))
    report = "\n".join(told)
    assert [verdict.seed for verdict in verdicts if verdict.wrong] == [], report
    assert sorted(verdict.seed for verdict in verdicts) == SEEDS, report
    # the runs were really disturbed, one of them for longer than Flower waits
    assert len(SEEDS) < 20 or "sites-asleep" in report, report
    assert sum(len(verdict.faults) for verdict in verdicts) >= len(SEEDS), report
    assert "FEDSEG_FAULTS" not in os.environ
