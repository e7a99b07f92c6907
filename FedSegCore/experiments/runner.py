"""Runs an experiment, setting by setting and seed by seed; what is done is not done again."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import whole_folder, write_json
from FedSegCore.common.progress import Progress
from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.data import SiteCases
from FedSegCore.experiments.runs import CohortSite, federation_and_member, federations_of
from FedSegCore.experiments.scoring import as_rows, score_cases
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.learning.cohort import Cohort
from FedSegCore.models.release import software_versions
from FedSegCore.models.signing import load_or_make_key

TRAINING_SHARE = 0.9
"""Share of a run's progress bar that training takes; scoring takes the rest."""


@dataclass
class ExperimentRun:
    """An experiment under way in a folder.

    Args:
        config: the experiment.
        sites: its images.
        budget: which of the config's budgets.
        folder: where results go; a folder of the same experiment is gone on with.
        device: where networks compute.

    Raises:
        BadInputError: ``experiment.unknown-budget``; ``experiment.other-folder``: the folder holds another experiment.
    """

    config: ExperimentConfig
    sites: Sequence[SiteCases]
    budget: str
    folder: Path
    device: torch.device
    _cohorts: dict[str, list[CohortSite]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget not in self.config.budgets:
            raise BadInputError(
                "experiment.unknown-budget",
                f"There is no budget {self.budget!r}.",
                f"Choose one of: {', '.join(self.config.budgets)}.",
            )
        described = self.config.model_dump(mode="json") | {"budget": self.budget}
        identity = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        stamp = self.folder / "experiment.json"
        if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8"))["identity"] != identity:
            raise BadInputError(
                "experiment.other-folder",
                "The folder holds results of another experiment, or of this one before it was changed.",
                "Give a new folder, or remove this one.",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(stamp, described | {"identity": identity})

    def run(self, progress: Progress) -> dict[str, Any]:
        """Run what is missing and return the results, which are also written to ``results.json``."""
        todo = [(setting, seed) for setting in self.config.settings for seed in self.config.seeds]
        runs = []
        for number, (setting, seed) in enumerate(todo):
            runs.append(self.run_one(setting, seed, progress.part(number / len(todo), (number + 1) / len(todo))))
        results = {
            "experiment": self.config.name,
            "budget": self.budget,
            "software": software_versions(),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "runs": [{key: value for key, value in run.items() if key != "rows"} for run in runs],
            "rows": [row for run in runs for row in run["rows"]],
        }
        write_json(self.folder / "results.json", results)
        return results

    def _run_folder(self, setting: str, seed: int) -> Path:
        """Return where a run is kept: one folder per federation, and ``run.json`` when it is done."""
        return self.folder / "runs" / f"{setting}-seed{seed}"

    def run_one(self, setting: str, seed: int, progress: Progress) -> dict[str, Any]:
        """Run one setting with one seed, or return what an earlier call left: seconds, curves and rows."""
        done = self._run_folder(setting, seed) / "run.json"
        if done.is_file():
            loaded: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
            return loaded
        title = self.config.settings[setting].title
        config = self.config.federation_of(setting, self.budget, seed)
        started = time.perf_counter()
        outcomes = self.train(setting, seed, config, progress.part(0.0, TRAINING_SHARE))
        trained = time.perf_counter()
        rows = self._score(setting, seed, config, outcomes, progress.part(TRAINING_SHARE, 1.0))
        run = {
            "setting": setting,
            "title": title,
            "seed": seed,
            "training_seconds": round(trained - started, 1),
            "scoring_seconds": round(time.perf_counter() - trained, 1),
            "curves": _curves(outcomes),
            "rows": rows,
        }
        write_json(done, run)
        return run

    def train(
        self, setting: str, seed: int, config: FederationConfig, progress: Progress
    ) -> dict[str, FederationOutcome]:
        """Train the federations of a setting; each goes on from its last whole round."""
        federations = federations_of(self.config.settings[setting], self._prepared(config))
        outcomes = {}
        for number, (name, members) in enumerate(federations.items()):
            part = progress.part(number / len(federations), (number + 1) / len(federations))
            sites = {member: (site.modality, site.cohort) for member, site in members.items()}
            folder = self._run_folder(setting, seed) / name
            folder.mkdir(parents=True, exist_ok=True)
            outcomes[name] = run_in_process(config, sites, folder, part, device=self.device)
        return outcomes

    def publish(self) -> Path:
        """Publish the group models of the default setting's first seed, once, and return the folder of releases."""
        releases = self.folder / "releases"
        if not releases.exists():
            key = load_or_make_key(self.folder / "release.key")
            federations = self._run_folder(self.config.default, self.config.seeds[0])
            with whole_folder(releases) as beside:
                for federation in sorted(path for path in federations.iterdir() if path.is_dir()):
                    publish_outcome(FederationOutcome.load(federation), beside, key)
        return releases

    def _prepared(self, config: FederationConfig) -> list[CohortSite]:
        """Return the sites' images prepared for ``config``; kept, since most settings prepare alike."""
        wanted = {site.modality: config.preprocessing_of(site.modality) for site in self.sites}
        key = repr(sorted(wanted.items()))
        if key not in self._cohorts:
            self._cohorts = {
                key: [
                    CohortSite(
                        site.name,
                        site.modality,
                        Cohort.prepare(site.training, site.validation, wanted[site.modality], config.contract),
                    )
                    for site in self.sites
                ]
            }
        return self._cohorts[key]

    def _score(
        self,
        setting: str,
        seed: int,
        config: FederationConfig,
        outcomes: dict[str, FederationOutcome],
        progress: Progress,
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for number, site in enumerate(self._prepared(config)):
            part = progress.part(number / len(self.sites), (number + 1) / len(self.sites))
            federation, member = federation_and_member(self.config.settings[setting], site)
            group = outcomes[federation].groups[config.group_of(site.modality)]
            cases = self.sites[number].test
            facts = {"setting": setting, "seed": seed, "site": site.name, "modality": site.modality}
            taught = group.trained_values()
            first, second = part.part(0.0, 0.5), part.part(0.5, 1.0)
            common = list(score_cases(group.model, taught, cases, config, site.modality, first, self.device))
            own = common
            if member in group.site_models:
                model = group.site_models[member]
                own = list(score_cases(model, taught, cases, config, site.modality, second, self.device))
            for own_scores, group_scores in zip(own, common, strict=True):
                rows += as_rows(facts, own_scores, group_scores)
        return rows


def _curves(outcomes: dict[str, FederationOutcome]) -> list[dict[str, Any]]:
    return [
        {
            "federation": federation,
            "group": group,
            "round": row.round_number,
            "site": row.site,
            "loss": row.loss,
            "scores": {score.label: score.dice for score in row.scores},
        }
        for federation, outcome in outcomes.items()
        for group, result in outcome.groups.items()
        for row in result.history
    ]
