"""The cost of a round by number of sites: ``python Testing/benchmarks/sites.py [--sites 10,100,1000]``.

Synthetic sites through the real loop on the in-process grid (``many_sites``), one process, one processor. Writes
``docs/scale-sites.json``, ``docs/images/scale-time.svg`` and ``docs/images/scale-memory.svg``. Times are processor time
with memory watched; what counts is their ratio to the same rule's cost per site at the smallest number of sites.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from many_sites import Size, cost

from FedSegCore.federation.aggregation import robust
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.reporting.plots import curves

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXCHANGE = ExchangeConfig(precision="float16", downlink="float16")
DEFAULT_MODEL = 5_000_000
"""About how many values the default network has: robust rules compare pieces that shrink with the model measured."""


def measure(rules: list[str], counts: list[int], values: int) -> list[dict[str, Any]]:
    """Return a row per rule and number of sites, the first number being the baseline of its rule."""
    rows: list[dict[str, Any]] = []
    for rule in rules:
        baseline = 0.0
        for sites in counts:
            folder = Path(tempfile.mkdtemp(prefix="fedseg-sites-"))
            try:
                found = cost(Size(sites, values), rule, EXCHANGE, folder)
            finally:
                shutil.rmtree(folder)
            per_site = found.seconds / sites
            baseline = baseline or per_site
            row = {
                "rule": rule,
                "sites": sites,
                "seconds": round(found.seconds, 2),
                "per_site_ratio": round(per_site / baseline, 2),
                "server_models": round(found.server_models, 2),
                "models": round(found.models, 2),
            }
            print(row, flush=True)  # noqa: T201 - a command
            rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the diagrams by file name; sites are drawn as powers of ten."""
    places = [{**row, "power": len(str(row["sites"])) - 1, "panel": ""} for row in rows]
    shared = {"x": "power", "panel": "panel", "line": "rule", "x_label": "sites, as a power of ten", "columns": 1}
    return {
        "scale-time.svg": curves(places, y="per_site_ratio", y_label="cost per site, 10 sites = 1", **shared),
        "scale-memory.svg": curves(places, y="server_models", y_label="models the server holds", **shared),
    }


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default="fedavg,flames,median")
    parser.add_argument("--sites", default="10,100,1000")
    parser.add_argument("--values", type=int, default=262_144, help="float32 values of the model")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    robust._AT_ONCE = max(1, robust._AT_ONCE * given.values // DEFAULT_MODEL)
    rows = measure(given.rules.split(","), [int(count) for count in given.sites.split(",")], given.values)
    (given.docs / "images").mkdir(parents=True, exist_ok=True)
    told = {"values": given.values, "exchange": EXCHANGE.model_dump(), "python": sys.version.split()[0], "rows": rows}
    (given.docs / "scale-sites.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for name, picture in draw(rows).items():
        (given.docs / "images" / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
