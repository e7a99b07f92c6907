"""Trains many tiny federations of real processes under seeded faults, and says what did not hold.

    python Testing/faults/many_runs.py --seeds 200

Every run must end complete, with no committed round lost and the sites' journals whole. Prints one line a run; exits
with 1 where anything did not hold. The folder with all logs is kept then.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from fault_kinds import BEHIND_PROXY, OWN_NETWORKS
from fault_networks import networks_allowed
from fault_runs import Verdict, run_seeds
from fault_world import children_with_a_hook


def run_all(
    folder: Path,
    seeds: list[int],
    sites: list[int],
    faults: Sequence[int],
    told: Callable[[Verdict], None],
    only: tuple[str, ...] = (),
) -> list[Verdict]:
    """Share ``seeds`` between federations that run side by side; ``sites`` holds the number of sites of each,
    ``faults`` how many its runs have.

    Every other one gives its sites networks of their own, where that is allowed; the sites of the rest are behind a
    proxy. Faults of one of the two in ``only`` decide it for all.
    """
    allowed = networks_allowed() and not BEHIND_PROXY & set(only)
    needed = bool(OWN_NETWORKS & set(only))
    verdicts: list[Verdict] = []
    lock = threading.Lock()

    def note(verdict: Verdict) -> None:
        with lock:
            verdicts.append(verdict)
            told(verdict)

    def work(number: int) -> None:
        share = seeds[number :: len(sites)]
        own_networks = allowed and (needed or number % 2 == 0)
        try:
            run_seeds(folder / f"federation-{number}", sites[number], own_networks, share, note, faults[number], only)
        except Exception as error:  # noqa: BLE001 - told as what did not hold, whatever it is
            note(Verdict(seed=-1, wrong=[f"federation {number}: {error!r}"]))

    with children_with_a_hook():
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(sites))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return verdicts


def words(verdict: Verdict) -> str:
    """Return one line."""
    done = ", ".join(f"{kind} at {moment} s" for moment, kind in verdict.faults) or "no fault in time"
    how = "; ".join(verdict.wrong) or "complete"
    return f"seed {verdict.seed}: {how} after {verdict.seconds} s, started {verdict.starts} times ({done})"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 1, 1, 1], help="sites of each federation")
    parser.add_argument("--faults", type=int, default=2, help="faults of a run")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="draw from these kinds of fault")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fedseg-faults-"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds = list(range(asked.first, asked.first + asked.seeds))

    def told(verdict: Verdict) -> None:
        sys.stdout.write(words(verdict) + "\n")
        sys.stdout.flush()

    verdicts = run_all(folder, seeds, asked.sites, [asked.faults] * len(asked.sites), told, tuple(asked.only))
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    sys.stdout.write(f"{len(verdicts)} runs, {len(wrong)} not as they must be\n")
    if wrong:
        sys.stdout.write(f"the logs are in {folder}\n")
    else:
        shutil.rmtree(folder)
    return 1 if wrong or len(verdicts) < asked.seeds else 0


if __name__ == "__main__":
    sys.exit(main())
