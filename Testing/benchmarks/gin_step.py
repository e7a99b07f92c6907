"""Measures what augmentation costs per training step, and writes docs/gin-step.md.

    python Testing/benchmarks/gin_step.py [--steps 8] [--repeats 12] [--out FILE]

One process trains the default networks on generated CT patients, on one thread, a few steps of each setting in turn and
again: what else the computer does meanwhile falls on all of them alike. Told is processor time against no augmentation,
the median over the turns and their quartiles. Every image is augmented (GIN's probability is 1).
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from FedSegCore.common.progress import Progress
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.tasks import training_task
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.steps import RoundOfSteps
from FedSegCore.networks.registry import build_network
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gin-step.md"
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"spatial": None, "gin": None},
    "spatial": {"spatial": {"probability": 1.0}, "gin": None},
    "GIN per batch": {"spatial": None, "gin": {"probability": 1.0, "per_batch": True}},
    "GIN per image": {"spatial": None, "gin": {"probability": 1.0}},
    "GIN + IPA": {"spatial": None, "gin": {"probability": 1.0, "ipa": True}},
}
PATCHES = {"2-D, 8 patches of 96 x 96": (8, (1, 96, 96)), "3-D, 2 patches of 48 x 64 x 64": (2, (48, 64, 64))}
WORDS = """# What augmentation costs per training step

Written by `python Testing/benchmarks/gin_step.py`: the default U-Nets on generated CT patients, one thread, processor
time against no augmentation in the same process, median and quartiles of {repeats} turns of {steps} steps. Every image
is augmented; GIN on half of the images, as federations are shipped, adds about half as much. IPA makes two samples of
an image and trains on both.

{table}
"""


def rounds(batch: int, patch: tuple[int, int, int], steps: int) -> dict[str, RoundOfSteps]:
    """Return a network under training for each setting; their cohort is the same."""
    patients = [make_patient("CT", seed) for seed in range(3)]
    made = {}
    for name, augmentation in SETTINGS.items():
        config = FederationConfig.model_validate(
            {
                "name": "cost",
                "contract": TORSO_CONTRACT,
                "augmentation": augmentation,
                "preprocessing": {"CT": {"modality": "CT", "spacing": (4.0, 4.0, 4.0), "window": (-160.0, 240.0)}},
                "networks": {"default": {"dimensions": 2 if patch[0] == 1 else 3}},
                "training": {"patch_size": patch, "batch_size": batch, "steps_per_round": steps},
            }
        )
        task = training_task(config, "CT")
        cases = [TrainingCase(f"c{n}", f"p{n}", p.image, p.labels, p.annotated) for n, p in enumerate(patients)]
        cohort = Cohort.prepare(cases, (), task.preprocessing, task.contract)
        torch.manual_seed(0)
        made[name] = RoundOfSteps(task, cohort, build_network(task.network), torch.device("cpu"))
    return made


def measure(batch: int, patch: tuple[int, int, int], steps: int, repeats: int) -> dict[str, list[float]]:
    """Return setting → processor time against no augmentation, one number a turn."""
    found: dict[str, list[float]] = defaultdict(list)
    made = rounds(batch, patch, steps)
    for turn in range(-1, repeats):  # the first one is for caches
        seconds = {}
        for name, steps_of in made.items():
            begin = time.process_time()
            steps_of.run(RoundRequest(1, 1, 0), torch.Generator().manual_seed(turn + 1), Progress())
            seconds[name] = time.process_time() - begin
        for name, needed in seconds.items():
            if turn >= 0:
                found[name].append(needed / seconds["none"])
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return patches × setting → median and quartiles, in Markdown."""
    lines = [["Augmentation", *found], ["---"] * (1 + len(found))]
    for name in SETTINGS:
        cells = []
        for times in found.values():
            low, middle, high = statistics.quantiles(times[name], n=4)
            cells.append(f"× {middle:.2f} ({low:.2f} to {high:.2f})" if name != "none" else "1")
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {words: measure(*how, arguments.steps, arguments.repeats) for words, how in PATCHES.items()}
    page = WORDS.format(table=table(found), repeats=arguments.repeats, steps=arguments.steps)
    arguments.out.write_text(page, encoding="utf-8")
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
