"""Measures bringing a result back to a large image's own voxels against interpolating all of it.

    python Testing/benchmarks/bringing_back.py [--slices 400] [--labels 6] [--repeats 3]

Soft balls stand for structures on the network's grid of a CT of 512 x 512 pixels a slice. Both ways run in one process,
on one thread, in turn; told is the processor time of each, and whether their labels are the same.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import numpy.typing as npt
import torch

from FedSegCore.common.progress import Progress
from FedSegCore.inference.restoring import most_probable
from FedSegCore.volumes.preparation import Prepared, prepared_grid
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING
from FedSegCore.volumes.sampling import Taps
from FedSegCore.volumes.volume import Grid


def some_scores(shape: tuple[int, int, int], labels: int) -> npt.NDArray[np.float16]:
    """Return probabilities (labels + 1, k, j, i) of a background and of balls in the middle of an image."""
    rng = np.random.default_rng(0)
    scores = np.zeros((labels + 1, *shape), np.float16)
    places = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for number in range(1, labels + 1):
        centre, radius = rng.uniform(0.3, 0.7, 3) * shape, rng.uniform(8, 40)
        away = np.sqrt(sum((place - middle) ** 2 for place, middle in zip(places, centre, strict=True))) - radius
        inside = 1 / (1 + np.exp(np.clip(away / 1.5, -30, 30)))
        scores[number] = np.maximum(0, inside - scores[1:number].sum(0))
    scores[0] = 1 - scores[1:].sum(0)
    return scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--labels", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    grid = Grid((arguments.slices, 512, 512), (0.75, 0.75, 1.0))
    target = prepared_grid(grid, DEFAULT_PREPROCESSING["CT"])
    prepared = Prepared(np.zeros((1, *target.shape), np.float32), target, grid)
    scores = some_scores(target.shape, arguments.labels)
    ways = {"needed": Taps.looking_at, "all": lambda taps, _chosen: slice(0, len(taps.indices))}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            Taps.looking_at = way
            begin = time.process_time()
            found[name] = most_probable(scores, prepared, Progress())[0].array
            seconds[name].append(time.process_time() - begin)
    ratios = [needed / whole for needed, whole in zip(seconds["needed"], seconds["all"], strict=True)]
    same = np.array_equal(found["needed"], found["all"])
    sys.stdout.write(
        f"{statistics.median(seconds['needed']):.2f} s against {statistics.median(seconds['all']):.2f} s, "
        f"x {statistics.median(ratios):.2f}; the labels are {'the same' if same else 'NOT the same'}\n"
    )


if __name__ == "__main__":
    main()
