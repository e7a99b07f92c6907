"""Measures what large pages save of training and segmenting on the processor (Linux with glibc 2.35 or newer).

    python Testing/benchmarks/huge_pages.py [--repeats 5] [--threads 1]

The default U-Nets, each time in a new process, with and without ``glibc.malloc.hugetlb=1`` in turn: what else the
computer does meanwhile falls on both alike. Told is processor time with large pages against without, the median over
the turns and the ends, and the memory of both.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from FedSegCore.common.huge_pages import VARIABLE
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.networks.registry import build_network

WORK = {
    "training, 3-D, 2 patches of 48 x 64 x 64": (True, (2, 1, 48, 64, 64)),
    "training, 2-D, 8 slices of 192 x 192": (True, (8, 1, 192, 192)),
    "segmenting, 3-D, a tile of 64 x 96 x 96": (False, (1, 1, 64, 96, 96)),
    "segmenting, 2-D, 4 tiles of 256 x 256": (False, (4, 1, 256, 256)),
}
WARM, STEPS = 2, 6


def step(network: torch.nn.Module, images: torch.Tensor, optimiser: torch.optim.Optimizer | None) -> None:
    """Do one training step, or segment once where there is no optimiser."""
    if optimiser is None:
        with torch.inference_mode():
            network.eval()(images).softmax(1)
        return
    optimiser.zero_grad(set_to_none=True)
    logits = network(images)
    torch.nn.functional.cross_entropy(logits, logits.detach().argmax(1)).backward()
    optimiser.step()


def measure(work: str, threads: int) -> None:
    """Print, in a process of its own, the processor seconds of a step and the peak of memory in MiB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    training, shape = WORK[work]
    network = build_network(NetworkConfig(dimensions=len(shape) - 2, out_channels=7))
    optimiser = torch.optim.AdamW(network.parameters(), fused=True) if training else None
    images, seconds = torch.rand(shape), []
    for _ in range(WARM + STEPS):
        begin = time.process_time()
        step(network, images, optimiser)
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps([statistics.median(seconds[WARM:]), peak]))


def turn(work: str, threads: int, tunables: str) -> tuple[float, int]:
    """Return what ``measure`` printed in a new process with these tunables."""
    command = [sys.executable, __file__, "--work", work, "--threads", str(threads)]
    environment = {**os.environ, VARIABLE: tunables}
    seconds, peak = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    return seconds, peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", choices=WORK, help="one measurement, in this process")
    arguments = parser.parse_args()
    if arguments.work is not None:
        measure(arguments.work, arguments.threads)
        return
    for work in WORK:
        turns = [
            (turn(work, arguments.threads, ""), turn(work, arguments.threads, "glibc.malloc.hugetlb=1"))
            for _ in range(arguments.repeats)
        ]
        ratios = sorted(large[0] / usual[0] for usual, large in turns)
        usual, large = (max(pair[which][1] for pair in turns) for which in (0, 1))
        sys.stdout.write(
            f"{work}: x {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
            f"{usual} MiB without, {large} MiB with\n"
        )


if __name__ == "__main__":
    main()
