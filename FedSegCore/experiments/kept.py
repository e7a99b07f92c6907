"""Results of experiments on disk: the folder a run leaves, and one small file to keep of it."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_file
from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.statistics import Row

SUFFIX = ".json.gz"

_WORDS = {"title", "question", "notes", "findings", "target", "targets", "reference", "references", "rounds_needed"}
"""What changes no run: it may be mended afterwards."""


@dataclass(frozen=True)
class MadeWith:
    """What runs were made with: device, CPU threads, and the packages with their versions."""

    device: str
    threads: int
    software: tuple[tuple[str, str], ...]

    @property
    def device_words(self) -> str:
        """Device and threads, in words."""
        return f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}"


def made_with(results: Mapping[str, Any]) -> list[MadeWith]:
    """Return what the runs of ``results`` were made with, each once. Old runs do not say; the experiment does."""
    stamps = (stamp for run in results["runs"] if (stamp := stamp_of(run, results)))
    found = (MadeWith(stamp["device"], stamp["threads"], tuple(stamp["software"].items())) for stamp in stamps)
    return list(dict.fromkeys(found))


def stamp_of(run: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a run says it was made with, or what its experiment says of all its runs, as it once did."""
    if "made_with" in run:
        return dict(run["made_with"])
    return {key: results[key] for key in ("device", "threads", "software")} if "software" in results else None


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


def run_identity(config: ExperimentConfig, budget: str, setting: str) -> str:
    """Return the SHA-256 of what decides a setting's runs under a budget; other settings, words and goals do not."""
    # Without defaults: an option that is new in a later version does not orphan what was done before it.
    shared = config.model_dump(mode="json", exclude_defaults=True, exclude=_WORDS | {"settings", "budgets"})
    own = config.settings[setting].model_dump(mode="json", exclude_defaults=True, exclude={"title"})
    meant = shared | {"setting": {setting: own}, "budget": {budget: config.budgets[budget]}}
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()


def brought_up_to_date(one: Finished, planned: Iterable[ExperimentConfig]) -> Finished:
    """Return ``one`` with the words, goals and further settings that its experiment's file has by now.

    Only where the file still asks for the runs that were done, as they were done.
    """
    settings = {run["setting"] for run in one.results["runs"]}
    for config in planned:
        if config.name == one.config.name and one.budget in config.budgets and settings <= config.settings.keys():
            then, now = ({run_identity(each, one.budget, name) for name in settings} for each in (one.config, config))
            return Finished(config, one.results) if then == now else one
    return one


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
        entries = {key: value for key, value in described.items() if key not in ("budget", "identity")}
        return Finished(ExperimentConfig.model_validate(entries), _rounded(results))
    # A ValidationError is a ValueError; TypeError and AttributeError: what was read is no dictionary.
    except (OSError, ValueError, KeyError, EOFError, zlib.error, TypeError, AttributeError) as error:
        raise BadInputError(
            "experiment.no-results",
            f"{path.name} holds no finished experiment.",
            "Give the --out folder of an experiment of which at least one seed is done, or a file kept of it.",
        ) from error


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
