"""Settings of every kind, run to the end on generated CT and MR patients, and the page written from them."""

import csv
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from phantom_data import write_data_set
from PIL import Image

from FedSegCore.common.progress import Progress
from FedSegCore.experiments import runner
from FedSegCore.experiments.config import ExperimentConfig, ExperimentSite, read_experiment
from FedSegCore.experiments.data import read_site, read_sites
from FedSegCore.experiments.report import write_experiment_report
from FedSegCore.experiments.runner import ExperimentRun
from FedSegCore.experiments.runs import CohortSite, federations_of, training_sites, with_more_steps
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.inference.devices import choose_device
from FedSegCore.learning.cohort import Cohort
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract

EXPERIMENT = """
name = "kinds"
title = "Every kind of setting"
question = "Do they all run?"
data_root = "data"
seeds = [0, 1]
default = "flames"
reference = "flames"
target = { CT = 1.0 }
rotate = true
surface_distances = false
pixel_accuracy = true
small_lesions = { CT = 20.0 }
rounds_needed = 0.9
notes = ["Phantoms, not patients."]
cross = [["rule", "absence"]]

[[sites]]
name = "ct"
modality = "CT"
dataset = "ct"
patients = [0, 4]
test_patients = 1
validation_patients = 1
mapping = { "liver" = [1], "right kidney" = [2] }

[[sites]]
name = "mr"
modality = "MR"
dataset = "mr"
patients = [0, 3]
test_patients = 1
mapping = { "liver" = [1], "right kidney" = "not annotated" }

[[sites]]
name = "guest"
modality = "MR"
dataset = "mr"
patients = [3, 5]
test_patients = 1
trains = false
mapping = { "liver" = [1], "right kidney" = [2] }

[axes.rule.fedavg]
title = "FedAvg"
federation.aggregation.rule = "fedavg"

[axes.absence.gone]
title = "CT gone after round 1"
participation.leaves.ct = 1

[axes.absence.all-missing]
title = "nearly nobody"
participation.missing = 0.9
test = ["ct", "mr"]

[settings.flames]
title = "FLAMES"

[settings.one-place]
title = "one place"
pooling = "pooled"
steps_of_all = true
federation = { grouping = "together", aggregation.rule = "fedavg" }

[settings.transfer]
title = "CT only"
train = ["ct"]
test = ["mr", "guest"]
federation = { grouping = "together", aggregation.rule = "fedavg" }

[settings.served]
title = "CT's model for MR"
train = ["ct"]
test = ["mr"]
serve.MR = "CT"

[settings.alone]
title = "alone"
pooling = "local"
training_patients.ct = 1
federation.training.oversampling.times = 3

[[targets]]
text = "FLAMES not far below one place"
setting = "flames"
kind = "difference"
against = ["one-place"]
at_least = -1.0

[[targets]]
text = "full budget only"
setting = "flames"
at_least = { full = 0.5 }

[federation]
rounds = 2
contract.labels = [
    { name = "liver", value = 1, colour = [221, 130, 101], type = { code = "10200004", meaning = "Liver" } },
    { name = "right kidney", value = 2, colour = [185, 102, 83], type = { code = "64033007", meaning = "Kidney" } },
]
preprocessing.CT = { modality = "CT", spacing = [8.0, 8.0, 8.0], window = [-160.0, 240.0] }
preprocessing.MR = { modality = "MR", spacing = [8.0, 8.0, "none"], percentiles = [0.5, 99.5] }
networks.default = { dimensions = 2, options = { channels = [4, 8], strides = [2], residual_units = 0 } }
training = { patch_size = [1, 48, 48], batch_size = 4, steps_per_round = 3 }
augmentation = { gin = "none" }

[budgets.quick]
[budgets.full]
rounds = 3
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for modality in ("CT", "MR"):
        write_data_set(folder / "data" / modality.lower(), modality, modality.lower(), first_seed=70)
    (folder / "kinds.toml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="module")
def run(study, tmp_path_factory) -> ExperimentRun:
    config = read_experiment(study / "kinds.toml")
    out = tmp_path_factory.mktemp("results") / "out"
    made = ExperimentRun(config, read_sites(config, study / "data"), "quick", out, choose_device("cpu"))
    made.run(Progress())
    return made


@pytest.fixture(scope="module")
def rows(run) -> list[dict]:
    return json.loads((run.folder / "results.json").read_text())["rows"]


def of_setting(rows: list[dict], setting: str) -> set[tuple[int, str, str]]:
    return {(row["seed"], row["site"], row["case"]) for row in rows if row["setting"] == setting}


def test_each_seed_tests_other_patients_and_who_has_no_model_is_not_tested(rows):
    everybody = {
        (0, "ct", "ct3"), (1, "ct", "ct2"), (0, "mr", "mr2"), (1, "mr", "mr1"), (0, "guest", "mr4"), (1, "guest", "mr3")
    }  # fmt: skip
    assert of_setting(rows, "flames") == everybody
    assert of_setting(rows, "one-place") == everybody
    assert of_setting(rows, "transfer") == {found for found in everybody if found[1] != "ct"}
    assert of_setting(rows, "served") == {found for found in everybody if found[1] == "mr"}
    # the guest does not train: where every site is alone it has no model
    assert of_setting(rows, "alone") == {found for found in everybody if found[1] != "guest"}
    assert of_setting(rows, "fedavg-gone") == everybody
    # at 0.9 missing a seed may lose a whole group, which then has a model of no training
    assert of_setting(rows, "fedavg-all-missing") <= of_setting(rows, "alone")


def test_rows_say_what_was_asked_for(rows):
    for row in rows:
        assert row["patient"] == f"p-{row['case']}"
        assert 0.0 <= row["pixel_accuracy"] <= 1.0
        assert row["surface_distance_mm"] is None
        if row["modality"] == "CT":
            expected = "none" if row["relative_area"] == 0 else "small" if 1 / row["relative_area"] >= 20 else "large"
            assert row["size"] == expected
        else:
            assert "size" not in row
    # the site "mr" annotates liver only
    assert {row["label"] for row in rows if row["site"] == "mr"} == {"liver"}
    sizes = {row["label"]: row["size"] for row in rows if row["modality"] == "CT"}
    assert sizes == {"liver": "large", "right kidney": "small"}


def outcome(run: ExperimentRun, setting: str, federation: str, seed: int = 0) -> FederationOutcome:
    return FederationOutcome.load(run.folder / "runs" / f"{setting}-seed{seed}" / federation)


def test_who_trained_is_what_the_settings_say(run):
    def steps(setting: str, federation: str) -> dict[str, list[tuple[str, int]]]:
        groups = outcome(run, setting, federation).groups
        return {name: [(row.site, row.steps) for row in group.history] for name, group in groups.items()}

    assert steps("flames", "federation") == {"CT": [("ct", 3)] * 2, "MR": [("mr", 3)] * 2}
    # two sites in one place: twice the steps
    assert steps("one-place", "pooled-all") == {"all": [("pooled-all", 6)] * 2}
    assert steps("transfer", "federation") == {"all": [("ct", 3)] * 2}
    assert steps("fedavg-gone", "federation") == {"CT": [("ct", 3)], "MR": [("mr", 3)] * 2}
    examples = [row.examples for row in outcome(run, "alone", "ct").groups["CT"].history]
    whole = [row.examples for row in outcome(run, "flames", "federation").groups["CT"].history]
    # one of two training patients
    assert max(examples) < min(whole)


def test_an_image_in_a_pool_is_prepared_as_its_own_modality_is(run):
    config = run.config.federation_of("one-place", "quick", 0)
    sites = training_sites(run.config, "one-place", run._prepared(config, 0))
    pools = federations_of(run.config.settings["one-place"], config, sites)
    (pool,) = pools["pooled-all"].values()
    by_case = {case.case_id: case.image for case in pool.cohort.training}
    for site in sites:
        source = next(one for one in run.sites if one.name == site.name)
        alone = Cohort.prepare(source.training, (), config.preprocessing_of(site.modality), config.contract)
        for case in alone.training:
            np.testing.assert_array_equal(by_case.pop(case.case_id), case.image)
    assert by_case == {}


def test_a_round_of_epochs_is_not_lengthened(run):
    config = run.config.federation_of("flames", "quick", 0)
    epochs = config.model_copy(update={"training": config.training.model_copy(update={"steps_per_round": None})})
    assert with_more_steps(epochs, 3) == epochs
    assert with_more_steps(config, 3).training.steps_per_round == 9


def test_fewer_patients_are_the_first_ones(run):
    config = run.config.federation_of("alone", "quick", 0)
    prepared: list[CohortSite] = run._prepared(config, 0)
    limited = {site.name: site.cohort for site in training_sites(run.config, "alone", prepared)}
    assert [case.case_id for case in limited["ct"].training] == ["ct0"]
    assert [case.case_id for case in limited["ct"].validation] == ["ct2"]
    assert [case.case_id for case in limited["mr"].training] == ["mr0", "mr1"]


def test_the_page_is_computed_from_the_rows(fedseg, run, rows, tmp_path):
    page_file = tmp_path / "docs" / "results.md"
    done = fedseg("results", run.folder, "--out", page_file)
    assert done.code == 0, done.err
    page = page_file.read_text(encoding="utf-8")
    held, missed = page.split("## What did not")
    assert "FLAMES not far below one place (kinds, quick)" in held
    assert "CT: FLAMES (kinds, quick)" in missed
    assert "full budget only" not in page
    assert "DiceS: true lesion A/a ≥ 20; DiceL: the other lesions. 0 of 2 images have no lesion" in page
    assert "| CT's model for MR |" in page
    assert "Phantoms, not patients." in page
    assert "Rounds to 90 % of the last validation Dice of “FLAMES”" in page
    assert "Milliseconds a step" in page
    (picture,) = (tmp_path / "docs" / "results").iterdir()
    assert f"](results/{picture.name})" in page
    drawing = picture.read_text(encoding="utf-8")
    # what the goals name, with the validation Dice of the site that has a validation patient
    for word in ("FLAMES", "one place", "CT: training loss", "MR: training loss", "CT: liver, validation Dice"):
        assert f">{word}<" in drawing, word
    assert ">CT only<" not in drawing
    overlap = [row["iou"] for row in rows if (row["setting"], row["modality"]) == ("flames", "CT")]
    halves = [np.mean(overlap[:2]), np.mean(overlap[2:])]
    assert f" {np.mean(halves):.3f} ± {np.std(halves, ddof=1):.3f} (2) |" in page.split("| FLAMES |")[1].split("\n")[0]
    # by hand: FLAMES on CT, mean over two cases (one a seed) of the mean over two labels
    dice = [row["dice"] for row in rows if (row["setting"], row["modality"]) == ("flames", "CT")]
    cases = [np.mean(dice[:2]), np.mean(dice[2:])]
    assert f"| FLAMES | {np.mean(cases):.3f} ± {np.std(cases, ddof=1):.3f} (2) |" in page


def test_the_page_is_made_again_from_what_was_kept(fedseg, run, tmp_path):
    first, again = tmp_path / "first" / "results.md", tmp_path / "again" / "results.md"
    kept = tmp_path / "kept"
    assert fedseg("results", run.folder, "--out", first, "--keep", kept).code == 0
    (file,) = kept.iterdir()
    assert file.name == "kinds-quick.json.gz"
    bytes_before = file.read_bytes()
    assert fedseg("results", file, "--out", again, "--keep", kept).code == 0
    assert again.read_text(encoding="utf-8") == first.read_text(encoding="utf-8")
    drawings = [(page.parent / "results" / "kinds-quick.svg").read_bytes() for page in (first, again)]
    assert drawings[0] == drawings[1]
    assert file.read_bytes() == bytes_before


def test_the_page_says_what_has_not_been_run(fedseg, study, run, tmp_path):
    files = tmp_path / "experiments"
    files.mkdir()
    text = (study / "kinds.toml").read_text()
    (files / "kinds.toml").write_text(text)
    (files / "other.toml").write_text(text.replace('name = "kinds"', 'name = "other"').replace("Every kind", "Another"))
    # as if the second seed were not done yet
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(run.folder / "experiment.json", part)
    results = json.loads((run.folder / "results.json").read_text())
    for key in ("runs", "rows"):
        results[key] = [one for one in results[key] if one["seed"] == 0]
    (part / "results.json").write_text(json.dumps(results))
    page_file = tmp_path / "results.md"
    assert fedseg("results", part, "--out", page_file, "--experiments", files).code == 0
    page = page_file.read_text(encoding="utf-8")
    open_ends = page.split("## What has not been run")[1].split("\n## ")[0]
    settings = len(run.config.settings)
    assert f"* Every kind of setting (`kinds`, `quick`): {settings} of its runs." in open_ends
    assert "* Every kind of setting (`kinds`): budget `full`." in open_ends
    assert "* Another of setting (`other`): budget `quick` and `full`." in open_ends
    assert f"| Every kind of setting | quick | {settings} of {2 * settings} | 0 |" in page
    assert f"**Unfinished**: {settings} of {2 * settings} runs" in page


def test_results_are_written_after_every_run_those_that_goals_name_first(run, monkeypatch):
    written: list[dict] = []
    monkeypatch.setattr(runner, "write_json", lambda path, value: written.append(value))
    done: dict[tuple[str, int], dict] = {}

    def run_one(setting: str, seed: int, _progress: Progress) -> None:
        done[setting, seed] = {"setting": setting, "seed": seed, "rows": []}

    monkeypatch.setattr(run, "run_one", run_one)
    monkeypatch.setattr(run, "_done", lambda setting, seed: done.get((setting, seed)))
    run.run(Progress())
    settings, seeds = len(run.config.settings), len(run.config.seeds)
    assert [len(one["runs"]) for one in written] == list(range(1, settings * seeds + 1))
    last = written[-1]["runs"]
    # the goals name flames (also default and reference) and one-place
    named, others = {"flames", "one-place"}, run.config.settings.keys() - {"flames", "one-place"}
    for seed, first, after in ((0, 0, 4), (1, 2, 4 + len(others))):
        assert {(one["setting"], one["seed"]) for one in last[first : first + 2]} == {(name, seed) for name in named}
        rest = last[after : after + len(others)]
        assert {(one["setting"], one["seed"]) for one in rest} == {(name, seed) for name in others}


def test_the_report_bears_settings_that_test_some_sites_only(run, tmp_path):
    results = json.loads((run.folder / "results.json").read_text())
    write_experiment_report(run.config, results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "CT only" in page
    assert "FLAMES does not reach the goal of 1.00" in page


def test_a_channel_is_chosen_and_empty_pictures_left_out(tmp_path):
    data = tmp_path / "data" / "pictures"
    data.mkdir(parents=True)
    rows = []
    for n in range(4):
        colour = np.stack([np.full((32, 32), 10 * n + c, np.uint8) for c in range(3)], axis=2)
        mask = np.zeros((32, 32), np.uint8)
        mask[:4, :4] = 2 if n == 1 else 1
        Image.fromarray(colour).save(data / f"{n}.png")
        Image.fromarray(mask).save(data / f"{n}-seg.png")
        rows.append([f"c{n}", f"{n}.png", f"{n}-seg.png", "here", f"p{n}"])
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["case", "image", "mask", "site", "patient"], *rows])
    site = ExperimentSite(
        name="s", modality="CT", dataset="pictures", patients=(0, 4), test_patients=1, mapping={"liver": (1,)},
        channel=2, skip_empty=True,
    )  # fmt: skip
    label = Label(name="liver", value=1, type=CodedTerm(code="1", meaning="Liver"), colour=(1, 2, 3))
    cases = read_site(site, LabelContract(labels=(label,)), tmp_path / "data")
    assert [case.case_id for case in cases.training] == ["c0", "c2"]
    assert [float(case.image.array.max()) for case in (*cases.training, *cases.test)] == [2.0, 22.0, 32.0]
    assert {(case.image.channels, case.image.modality) for case in cases.training} == {(1, "CT")}


def test_a_folder_without_results_is_named(fedseg, tmp_path):
    done = fedseg("results", tmp_path, "--out", tmp_path / "results.md")
    assert done.code == 3
    assert "experiment.no-results" in done.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('train = ["ct"]\ntest = ["mr"]', 'train = ["cd"]\ntest = ["mr"]'), "settings.served names the site 'cd'"),
        (("participation.leaves.ct", "participation.leaves.cd"), "settings.fedavg-gone names the site 'cd'"),
        (("training_patients.ct", "training_patients.cd"), "'cd'"),
        (('["rule", "absence"]', '["rules", "absence"]'), "cross names the axis 'rules'"),
        (('cross = [["rule", "absence"]]', 'cross = [["rule"], ["rule"]]'), "two combinations"),
        (('against = ["one-place"]', 'against = ["nowhere"]'), "a target names the setting 'nowhere'"),
        (('against = ["one-place"]', ""), "needs against"),
        (("target = {", 'references = { MR = "nobody" }\ntarget = {'), "references.MR names the setting 'nobody'"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said(change, says):
    assert change[0] in EXPERIMENT
    raw = tomllib.loads(EXPERIMENT.replace(*change, 1).replace('"none"', "8.0").replace("gin = 8.0", ""))
    with pytest.raises(ValueError, match="validation error") as caught:
        ExperimentConfig.model_validate(raw)
    assert says in str(caught.value)
