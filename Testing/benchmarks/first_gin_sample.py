"""Measures how soon the See tab has its first picture, and the rest, of a volume of 256 x 256 x 256 voxels.

    python Testing/benchmarks/first_gin_sample.py [--side 256] [--threads 2]

The real worker is asked as the tab asks it: first slices of one sample, of four more, then the whole volume of one.
Times are wall-clock seconds until the answer, with the files written; "cold" includes the worker's start, "warm" is
what moving a slider costs. The goal is a first sample within 3 s on 2 cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume


class Worker:
    """The worker as a child process, one request at a time."""

    def __init__(self, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "FedSegCore.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._number = 0

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer's result; raises RuntimeError for an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("id") == self._number and "method" not in message:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]
        raise RuntimeError("the worker ended")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def scan(side: int) -> Volume:
    """Return an int16 volume of 1 mm voxels with a body, organs and noise."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    k, j, i = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    body = (i**2 / 0.8 + j**2 / 0.5 < 1) * 1040.0 - 1000.0 + ((i - 0.3) ** 2 + j**2 + k**2 < 0.1) * 60.0
    noise = np.random.default_rng(0).normal(0, 15, body.shape).astype(np.float32)
    return Volume((body + noise).astype(np.int16)[None], Grid((side,) * 3, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))


def measure(side: int, threads: int) -> dict[str, dict[str, float]]:
    """Return seconds by modality and step."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(scan(side), folder / "image.nrrd", compressed=False)
        for modality in ("CT", "MR"):
            common = {"image": str(folder / "image.nrrd"), "modality": modality, "folder": name}
            steps: dict[str, dict[str, Any]] = {
                "first sample, cold": {"samples": 1, "slices": 5},
                "four more": {"samples": 4, "first": 1, "slices": 5},
                "first sample, warm": {"samples": 1, "slices": 5, "seed": 1},
                "one whole volume": {"samples": 1},
            }
            start = time.perf_counter()
            worker = Worker(threads)
            worker.ask("initialize")
            found[modality] = {}
            for words, params in steps.items():
                worker.ask("gin.preview", **common, **params)
                found[modality][words] = time.perf_counter() - start
                start = time.perf_counter()
            worker.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for modality, steps in measure(arguments.side, arguments.threads).items():
        for words, seconds in steps.items():
            sys.stdout.write(f"{modality}  {words:20} {seconds:6.2f} s\n")


if __name__ == "__main__":
    main()
