"""Writes ``docs/scale.md`` from what the benchmarks wrote: ``python Testing/benchmarks/scale_page.py``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """Return a Markdown table of ``columns``: key → heading."""
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[str(row[key]) for key in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(sites: dict[str, Any], payload: dict[str, Any] | None) -> str:
    """Return the page; without ``payload`` it says that this was not measured."""
    cost = table(
        sites["rows"],
        {
            "rule": "Rule",
            "sites": "Sites",
            "per_site_ratio": "Cost per site, ratio to 10 sites",
            "server_models": "Models the server holds",
        },
    )
    forms = "" if payload is None else _forms(payload)
    return _PAGE.format(cost=cost, forms=forms or _NOT_YET, values=sites["values"])


def _forms(payload: dict[str, Any]) -> str:
    rows = table(
        payload["rows"],
        {
            "form": "Form",
            "bytes_up": "Bytes a site sends a round",
            "bytes_up_ratio": "ratio to float32",
            "bytes_down": "Bytes it receives",
            "dice": "Dice",
            "dice_difference": "difference",
        },
    )
    return _FORMS.format(rows=rows, rounds=payload["rounds"])


_NOT_YET = "Bytes and Dice of every form of `[exchange]`: run `payload.py`; not measured yet on a quiet machine."

_FORMS = """Three sites with generated patients (two CT, one MR) train one small 2-D U-Net together for {rounds} rounds,
seeded, once for every form of `[exchange]`:

{rows}

One seed and one patient to score on at each site: small differences mean nothing. Leaving changes out makes training
slower rather than worse, and needs more rounds; with so few it shows."""


_PAGE = """# Scale

Written by `python Testing/benchmarks/scale_page.py` from what `sites.py` and `payload.py` beside it measured; run these
two again after a change.

## What a round costs, by number of sites

Synthetic sites answer through the real loop, client apps, checks and rules on the in-process grid, one process on one
processor, float16 both ways, a model of {values} float32 values, one round.

{cost}

![Cost per site by number of sites](images/scale-time.svg)

![Models the server holds by number of sites](images/scale-memory.svg)

*Cost* is processor time with memory watched, server and sites together: a line that stays flat means that nothing grows
faster than the number of sites. *Models the server holds* is the largest amount of memory that the server's own code
held at once, in float32 models: the group's model, one sum in float64 (two models) and one answer. It is the slope
between a model of this size and a sixteenth of it, so names, rows and events, which do grow with the number of
sites but not with the model, are not in it. Neither is what Flower needs to put a message together: up to three times
the message for a moment. At full precision an answer counts one model instead of a half. The personal models of FLAMES
and the updates that the robust rules compare lie on disk, and so does, on a real grid, what SuperLink has yet to
deliver. Robust rules read them in pieces of 32 MB, here of as much less as the model is smaller than the default
network. Rules of Flower itself (`flower`) need all updates in memory and do not scale so.

With a thousand sites the lists of them take more memory than the small model's arrays, so that part of a model is
missing in the slope. The median costs a site more where there are more of them: its pieces become thinner, and each is
read from every site's file.

## What travels

{forms}

```toml
[exchange]
precision = "float16"   # or "float32" (default, exact) or "int8"
downlink = "float16"    # models to the sites; default "float32"
top_k = "none"          # or the share of changes that travel, such as 0.25
error_feedback = true
```

## Large messages

Flower 1.41 cuts a model into content-addressed objects of at most 5 MB and pushes and pulls each by itself; there is no
limit to a message. A push that broke off goes on with the objects that are missing
(`Testing/federation/test_large_messages.py`).
"""


def main() -> None:
    """Write the page."""
    files = [DOCS / f"scale-{name}.json" for name in ("sites", "payload")]
    sites, payload = (json.loads(file.read_text(encoding="utf-8")) if file.exists() else None for file in files)
    (DOCS / "scale.md").write_text(page(sites, payload), encoding="utf-8")


if __name__ == "__main__":
    main()
