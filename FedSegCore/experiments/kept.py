"""Results of experiments on disk: the folder a run leaves, and one small file to keep of it."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_file
from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.statistics import Row

SUFFIX = ".json.gz"


@dataclass(frozen=True)
class Finished:
    """An experiment as far as it was run: what was asked, and what came out (``results.json``)."""

    config: ExperimentConfig
    results: dict[str, Any]

    @property
    def id(self) -> str:
        """Name and budget."""
        return f"{self.config.name}-{self.budget}"

    @property
    def rows(self) -> list[Row]:
        """Rows of setting, seed, site, modality, case, label."""
        rows: list[Row] = self.results["rows"]
        return rows

    @property
    def budget(self) -> str:
        """Name of the budget."""
        return str(self.results["budget"])

    @property
    def modalities(self) -> list[str]:
        """Modalities in the order of their rows."""
        return list(dict.fromkeys(row["modality"] for row in self.rows))

    @property
    def titles(self) -> dict[str, str]:
        """Setting → title."""
        return {name: setting.title for name, setting in self.config.settings.items()}

    def training_seconds(self, run: Mapping[str, Any]) -> float:
        """Return how long a run's sites trained; what was interrupted counts too, as ``training_seconds`` does not."""
        return sum(row["seconds"] or 0.0 for row in run["curves"]) or float(run["training_seconds"])

    @property
    def seeds(self) -> list[int]:
        """Seeds that were run."""
        return sorted({run["seed"] for run in self.results["runs"]})

    @property
    def missing(self) -> int:
        """How many runs (setting × seed) are still to be done."""
        return len(self.config.settings) * len(self.config.seeds) - len(self.results["runs"])


def read_finished(path: Path) -> Finished:
    """Read what an experiment left: its folder, or a file that ``keep`` wrote; either way the same numbers.

    Raises:
        BadInputError: ``experiment.no-results``: no seed of an experiment has been finished there.
    """
    try:
        if path.is_file():
            whole = json.loads(gzip.decompress(path.read_bytes()))
            described, results = whole["experiment"], whole["results"]
        else:
            described = json.loads((path / "experiment.json").read_text(encoding="utf-8"))
            results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BadInputError(
            "experiment.no-results",
            f"{path.name} holds no finished experiment.",
            "Give the --out folder of an experiment of which at least one seed is done, or a file kept of it.",
        ) from error
    entries = {key: value for key, value in described.items() if key not in ("budget", "identity")}
    return Finished(ExperimentConfig.model_validate(entries), _rounded(results))


def keep(finished: Sequence[Finished], folder: Path) -> list[Path]:
    """Write each experiment's description, rows and curves to ``folder/<name>-<budget>.json.gz``.

    The same results give the same bytes. Their numbers are rounded to five digits after the point.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in finished:
        described = one.config.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps({"experiment": described, "results": _rounded(one.results)}, separators=(",", ":"))
        target = folder / f"{one.id}{SUFFIX}"
        with whole_file(target) as beside:
            beside.write_bytes(gzip.compress(text.encode(), mtime=0))
        written.append(target)
    return written


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value
