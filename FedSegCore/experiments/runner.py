"""Runs an experiment, setting by setting and seed by seed; what is done is not done again."""

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
from FedSegCore.experiments.kept import Finished, run_identity, stamp_of
from FedSegCore.experiments.runs import (
    CohortSite,
    federation_and_member,
    federations_of,
    training_sites,
    with_more_steps,
)
from FedSegCore.experiments.scoring import Tester, case_rows
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.outcome import FederationOutcome, GroupResult
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.federation.round_numbers import mean_dice
from FedSegCore.learning.case import TrainingCase
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
    _cohorts: dict[str, dict[int, list[CohortSite]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.budget not in self.config.budgets:
            raise BadInputError(
                "experiment.unknown-budget",
                f"There is no budget {self.budget!r}.",
                f"Choose one of: {', '.join(self.config.budgets)}.",
            )
        for setting, seed in self._order():
            done = self._done(setting, seed)
            if done is not None and done.get("identity") != run_identity(self.config, self.budget, setting):
                raise BadInputError(
                    "experiment.other-folder",
                    f"The folder's run of {setting} is of another experiment, or of this one before it was changed.",
                    "Give a new folder, or remove this one.",
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.config.model_dump(mode="json") | {"budget": self.budget}
        write_json(self.folder / "experiment.json", described)

    def adopt(self, kept: Finished) -> int:
        """Take over the runs of an unfinished experiment that were kept in one file; return how many.

        Settings that are new, or were changed since, are run. So is the default setting's first seed: its models, which
        no such file holds, are published.

        Raises:
            BadInputError: ``experiment.other-kept``: no setting is as it was then.
        """
        now = {name: run_identity(self.config, self.budget, name) for name in self.config.settings}
        then = {name: run_identity(kept.config, kept.budget, name) for name in kept.config.settings}
        same = {name for name, identity in now.items() if then.get(name) == identity}
        if not same:
            raise BadInputError(
                "experiment.other-kept",
                "The kept results are of another experiment or budget, or of this one before it was changed.",
                "Give the file that was kept of this one, or none.",
            )
        wanted = {(name, seed) for name in same for seed in self.config.seeds}
        wanted.discard((self.config.default, self.config.seeds[0]))
        adopted = 0
        for run in kept.results["runs"]:
            which = (run["setting"], run["seed"])
            if which in wanted and self._done(*which) is None:
                done = self._run_file(*which)
                done.parent.mkdir(parents=True, exist_ok=True)
                rows = [row for row in kept.rows if (row["setting"], row["seed"]) == which]
                facts = {"identity": now[run["setting"]], "made_with": stamp_of(run, kept.results), "rows": rows}
                write_json(done, run | facts)
                adopted += 1
        self._write_results()
        return adopted

    def run(self, progress: Progress) -> dict[str, Any]:
        """Run what is missing and return the results; all there are yet stand in ``results.json`` after every run.

        First come the settings that goals name, then the others, each seed by seed: so an unfinished experiment has
        what is to be compared.
        """
        todo = self._order()
        for number, (setting, seed) in enumerate(todo):
            self.run_one(setting, seed, progress.part(number / len(todo), (number + 1) / len(todo)))
            results = self._write_results()
        return results

    def _order(self) -> list[tuple[str, int]]:
        config = self.config
        named = {name for target in config.targets for name in (target.setting, *target.against)}
        named |= {config.default, config.reference}
        runs = [(setting, seed) for seed in config.seeds for setting in config.settings]
        return sorted(runs, key=lambda run: run[0] not in named)

    def _write_results(self) -> dict[str, Any]:
        """Write what was done so far, here or before, whatever its place in the order; return it."""
        runs = [run for which in self._order() if (run := self._done(*which)) is not None]
        results = {
            "experiment": self.config.name,
            "budget": self.budget,
            "runs": [{key: value for key, value in run.items() if key not in ("rows", "identity")} for run in runs],
            "rows": [row for run in runs for row in run["rows"]],
        }
        write_json(self.folder / "results.json", results)
        return results

    def _run_folder(self, setting: str, seed: int) -> Path:
        """Return where a run is kept: one folder per federation, and ``run.json`` when it is done."""
        return self.folder / "runs" / f"{setting}-seed{seed}"

    def _run_file(self, setting: str, seed: int) -> Path:
        return self._run_folder(setting, seed) / "run.json"

    def _done(self, setting: str, seed: int) -> dict[str, Any] | None:
        """Return what an earlier call left of a run; None if it was not finished."""
        file = self._run_file(setting, seed)
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def run_one(self, setting: str, seed: int, progress: Progress) -> dict[str, Any]:
        """Run one setting with one seed, or return what an earlier call left: seconds, curves and rows."""
        if (done := self._done(setting, seed)) is not None:
            return done
        title = self.config.settings[setting].title
        config = self.config.federation_of(setting, self.budget, seed)
        started = time.perf_counter()
        outcomes = self.train(setting, seed, config, progress.part(0.0, TRAINING_SHARE))
        trained = time.perf_counter()
        rows = self._score(setting, seed, config, outcomes, progress.part(TRAINING_SHARE, 1.0))
        run = {
            "identity": run_identity(self.config, self.budget, setting),
            "setting": setting,
            "title": title,
            "seed": seed,
            "training_seconds": round(trained - started, 1),
            "scoring_seconds": round(time.perf_counter() - trained, 1),
            "made_with": {
                "device": self.device.type,
                "threads": torch.get_num_threads(),
                "software": software_versions(),
            },
            "curves": _curves(outcomes),
            "rows": rows,
        }
        write_json(self._run_file(setting, seed), run)
        return run

    def train(
        self, setting: str, seed: int, config: FederationConfig, progress: Progress
    ) -> dict[str, FederationOutcome]:
        """Train the federations of a setting; each goes on from its last whole round."""
        chosen = self.config.settings[setting]
        trained = training_sites(self.config, setting, self._prepared(config, seed))
        federations = federations_of(chosen, config, trained)
        outcomes = {}
        for number, (name, members) in enumerate(federations.items()):
            part = progress.part(number / len(federations), (number + 1) / len(federations))
            sites = {member: (site.modality, site.cohort) for member, site in members.items()}
            folder = self._run_folder(setting, seed) / name
            folder.mkdir(parents=True, exist_ok=True)
            pooled = sum(federation_and_member(chosen, s, config.group_of(s.modality))[0] == name for s in trained)
            steps = pooled if chosen.pooling == "pooled" and chosen.steps_of_all else 1
            outcomes[name] = run_in_process(
                with_more_steps(config, steps),
                sites,
                folder,
                part,
                participation=chosen.participation.asked(seed),
                device=self.device,
            )
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

    def _turns(self, seed: int) -> int:
        return self.config.seeds.index(seed) if self.config.rotate else 0

    def _prepared(self, config: FederationConfig, seed: int) -> list[CohortSite]:
        """Return the sites' images prepared for ``config``; kept, since most settings prepare alike."""
        wanted = {site.modality: config.preprocessing_of(site.modality) for site in self.sites}
        key, turns = repr(sorted(wanted.items())), self._turns(seed)
        if key not in self._cohorts:
            self._cohorts = {key: {}}
        if turns not in self._cohorts[key]:
            self._cohorts[key][turns] = [
                CohortSite(
                    site.name,
                    site.modality,
                    Cohort.prepare(site.training, site.validation, wanted[site.modality], config.contract),
                )
                for site in (site.rotated(turns) for site in self.sites)
            ]
        return self._cohorts[key][turns]

    def _score(
        self,
        setting: str,
        seed: int,
        config: FederationConfig,
        outcomes: dict[str, FederationOutcome],
        progress: Progress,
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        chosen = self.config.settings[setting]
        tested = self.config.tested_sites(setting)
        for number, site in enumerate(self._prepared(config, seed)):
            own_group = config.group_of(site.modality)
            name = chosen.serve.get(site.modality, own_group)
            federation, member = federation_and_member(chosen, site, name)
            groups = outcomes[federation].groups if federation in outcomes else {}
            if site.name in tested and name in groups:
                part = progress.part(number / len(self.sites), (number + 1) / len(self.sites))
                facts = {"setting": setting, "seed": seed, "site": site.name, "modality": site.modality}
                tester = Tester(config, site.modality, name, self.device, self.config.surface_distances)
                cases = self.sites[number].rotated(self._turns(seed)).test
                rows += self._site_rows(facts, tester, groups[name], member, cases, part)
        return rows

    def _site_rows(
        self,
        facts: dict[str, Any],
        tester: Tester,
        group: GroupResult,
        member: str,
        cases: Sequence[TrainingCase],
        progress: Progress,
    ) -> list[dict[str, Any]]:
        taught = group.trained_values()
        common = list(tester.score(group.model, taught, cases, progress.part(0.0, 0.5)))
        own = common
        if member in group.site_models:
            own = list(tester.score(group.site_models[member], taught, cases, progress.part(0.5, 1.0)))
        together = zip(cases, own, common, strict=True)
        return [row for case, one, other in together for row in case_rows(facts, case, one, other, self.config)]


def _curves(outcomes: dict[str, FederationOutcome]) -> list[dict[str, Any]]:
    return [
        {
            "federation": federation,
            "group": group,
            "round": row.round_number,
            "site": row.site,
            "loss": row.loss,
            "steps": row.steps,
            "seconds": row.seconds.get("training"),
            "scores": mean_dice(row.scores),
        }
        for federation, outcome in outcomes.items()
        for group, result in outcome.groups.items()
        for row in result.history
    ]
