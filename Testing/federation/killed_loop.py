"""Runs a federation again and again in forks that are killed at a chosen touch of the disk, until one gets through.

    python killed_loop.py FOLDER SEED...

A fork ends itself with SIGKILL when it opens, renames, makes or removes its n-th file or folder below the run's folder,
n drawn from the seed: in the middle of a state's writing as well as between two rounds. Prints one JSON line a seed.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.federation.state_store import GroupStateStore

KILLS = 6
TOUCHES = 260
_EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "os.truncate"})


def make_run(folder: Path) -> Run:
    """Two groups under FLAMES, so that rule state, own models and several groups are written."""
    config = federation(rounds=5, aggregation={"rule": "flames", "options": {"batch_norm": "local"}})
    sites = {"a": AddingTrainer(step=0.1), "b": AddingTrainer(step=0.7, examples=3), "m": AddingTrainer("MR", 0.3)}
    return Run(folder, config, sites)


def kill_at(touch: int, folder: Path) -> None:
    """End this process at its ``touch``-th touch of what lies below ``folder``."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in _EVENTS and str(arguments[0]).startswith(str(folder)):
            seen += 1
            if seen == touch:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def rounds_of(folder: Path) -> dict[str, int]:
    """Return group → rounds that are committed."""
    store = GroupStateStore(folder / "state")
    return {group: store.load(group).round_number for group in store.groups()}


def attempt(folder: Path, touch: int | None) -> bool:
    """Run in a fork; returns whether it got to its end."""
    child = os.fork()
    if child == 0:
        if touch is not None:
            kill_at(touch, folder)
        try:
            make_run(folder).loop().run()
        except BaseException as error:  # noqa: BLE001 - the fork must never return into the parent's code
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def main() -> None:
    """Run every seed."""
    # a killed process loses nothing that it has written; only a power cut would
    os.fsync = lambda descriptor: None
    for seed in map(int, sys.argv[2:]):
        draws = random.Random(seed)
        folder = Path(sys.argv[1]) / f"seed-{seed}"
        touches = [draws.randint(1, TOUCHES) for _ in range(KILLS)]
        committed: list[dict[str, int]] = []
        done = False
        for touch in (*touches, None):
            done = attempt(folder, touch)
            committed.append(rounds_of(folder))
            if done:
                break
        told = {"seed": seed, "done": done, "attempts": len(committed), "committed": committed}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
