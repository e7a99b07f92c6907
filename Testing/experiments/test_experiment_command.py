"""``fedseg experiment`` through its entry point, on a small data set of generated patients."""

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from phantom_data import write_data_set
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError, CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.experiments.config import ExperimentSite, read_experiment
from FedSegCore.experiments.data import read_site, read_sites
from FedSegCore.experiments.kept import brought_up_to_date, keep, read_finished
from FedSegCore.experiments.runner import ExperimentRun
from FedSegCore.experiments.scoring import Tester
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.inference.devices import choose_device
from FedSegCore.models.release import list_releases
from FedSegCore.volumes.preparation import prepare

EXPERIMENT = """
name = "tiny"
title = "Two sites"
question = "Does the whole chain run?"
data_root = "data"
seeds = [0, 1]
default = "flames"
reference = "local"
target = { CT = 1.0 }

[[sites]]
name = "north"
modality = "CT"
dataset = "phantoms"
patients = [0, 3]
test_patients = 1
validation_patients = 1
mapping = { "liver" = [1], "right kidney" = [2] }

[[sites]]
name = "south"
modality = "CT"
dataset = "phantoms"
patients = [3, 5]
test_patients = 1
mapping = { "liver" = [1], "right kidney" = [2] }

[settings.flames]
title = "FLAMES"

[settings.local]
title = "alone"
pooling = "local"
federation.aggregation.rule = "fedavg"

[settings.pooled]
title = "one place"
pooling = "pooled"
federation.aggregation.rule = "fedavg"

[federation]
rounds = 2
contract.labels = [
    { name = "liver", value = 1, colour = [221, 130, 101], type = { code = "10200004", meaning = "Liver" } },
    { name = "right kidney", value = 2, colour = [185, 102, 83], type = { code = "64033007", meaning = "Kidney" } },
]
preprocessing.CT = { modality = "CT", spacing = [8.0, 8.0, 8.0], window = [-160.0, 240.0] }
networks.default = { dimensions = 2, options = { channels = [4, 8], strides = [2], residual_units = 0 } }
training = { patch_size = [1, 48, 48], batch_size = 4, steps_per_round = 3 }
"""


ADDED = """
[settings.added]
title = "FedAvg, one step"
federation.aggregation.rule = "fedavg"
federation.training.steps_per_round = 1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A folder with the experiment's file and its data set."""
    folder = tmp_path_factory.mktemp("study")
    write_data_set(folder / "data" / "phantoms", "CT", "case", first_seed=50)
    (folder / "tiny.toml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    run_to(study, out, Progress())
    return out


def run_to(study: Path, out: Path, progress: Progress) -> dict:
    config = read_experiment(study / "tiny.toml")
    run = ExperimentRun(config, read_sites(config, study / "data"), "quick", out, choose_device("cpu"))
    return run.run(progress)


def test_the_command_leaves_rows_releases_and_a_report(fedseg, study, tmp_path):
    out = tmp_path / "out"
    done = fedseg("experiment", study / "tiny.toml", "--out", out, "--device", "cpu", "--threads", 1, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    rows = json.loads((out / "results.json").read_text())["rows"]
    # 3 settings x 2 seeds x 2 sites x 1 test case x 2 labels
    assert len(rows) == 24
    assert {row["case"] for row in rows} == {"case2", "case4"}
    assert {row["site"] for row in rows} == {"north", "south"}
    assert all(0.0 <= row["dice"] <= 1.0 and 0.0 <= row["group_dice"] <= 1.0 for row in rows)
    assert [release.id for release in list_releases(Path(told["releases"]))] == ["tiny-CT-v1"]
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "does not reach the goal of 1.00" in page
    assert "FLAMES" in page


def test_rows_are_of_the_sites_own_mix_and_of_the_groups_model(study, finished):
    config = read_experiment(study / "tiny.toml")
    federation = config.federation_of("flames", "quick", 0)
    group = FederationOutcome.load(finished / "runs" / "flames-seed0" / "federation").groups["CT"]
    tester = Tester(federation, "CT", "CT", choose_device("cpu"), distances=False)
    for site in read_sites(config, study / "data"):
        own = group.site_models[site.name]
        assert any(not np.array_equal(own[name], group.model[name]) for name in own)
        rows = [row for row in read_finished(finished).rows if row["site"] == site.name]
        for key, model in (("dice", own), ("group_dice", group.model)):
            (scored,) = tester.score(model, group.trained_values(), site.test, Progress())
            expected = {score.label: score.dice for score in scored.scores}
            found = {row["label"]: row[key] for row in rows if (row["setting"], row["seed"]) == ("flames", 0)}
            assert found == pytest.approx(expected, abs=1e-5)


def test_a_killed_experiment_goes_on_where_it_was_with_the_same_numbers(study, finished, tmp_path):
    out = tmp_path / "out"
    stop = threading.Event()

    def cancel_in_the_second_run(fraction: float, _stage: str) -> None:
        if fraction > 0.3:
            stop.set()

    with pytest.raises(CancelledError):
        run_to(study, out, Progress(cancel_in_the_second_run, stop))
    kept = sorted(path.parent.name for path in out.glob("runs/*/run.json"))
    assert kept
    assert len(kept) < 6
    assert len(json.loads((out / "results.json").read_text())["runs"]) == len(kept)
    run_to(study, out, Progress())
    again, unbroken = (json.loads((folder / "results.json").read_text())["rows"] for folder in (out, finished))
    assert again == unbroken


def test_what_was_kept_of_an_unfinished_experiment_is_not_run_again(fedseg, study, finished, tmp_path):
    (kept,) = keep([read_finished(finished)], tmp_path)
    out = tmp_path / "out"
    command = ("experiment", study / "tiny.toml", "--out", out, "--threads", 1, "--kept", kept)
    done = fedseg(*command)
    assert done.code == 0, done.err
    assert "5 runs were kept" in done.err
    # run anew: the default's first seed alone, whose models are published
    assert [path.parent.name for path in out.glob("runs/*/*") if path.is_dir()] == ["flames-seed0"]
    assert [release.id for release in list_releases(out / "releases")] == ["tiny-CT-v1"]
    again, before = (read_finished(folder).rows for folder in (out, finished))
    assert again == before
    # another setting is run in addition; the others stay
    more = study / "more.toml"
    more.write_text((study / "tiny.toml").read_text() + ADDED)
    done = fedseg("experiment", more, "--out", out, "--threads", 1)
    assert done.code == 0, done.err
    told = read_finished(out)
    assert [row for row in told.rows if row["setting"] != "added"] == before
    assert {row["seed"] for row in told.rows if row["setting"] == "added"} == {0, 1}
    (study / "changed.toml").write_text((study / "tiny.toml").read_text().replace("rounds = 2", "rounds = 3"))
    refused = fedseg("experiment", study / "changed.toml", "--out", tmp_path / "other", "--kept", kept)
    assert (refused.code, "experiment.other-kept" in refused.err) == (3, True)


def test_an_experiment_that_is_stopped_at_once_still_tells_all_that_was_kept(study, finished, tmp_path):
    config, stop = read_experiment(study / "tiny.toml"), threading.Event()
    stop.set()
    run = ExperimentRun(config, read_sites(config, study / "data"), "quick", tmp_path / "out", choose_device("cpu"))
    assert run.adopt(read_finished(finished)) == 5
    with pytest.raises(CancelledError):
        run.run(Progress(cancelled=stop))
    told = read_finished(tmp_path / "out")
    assert told.missing == 1  # the default's first seed, whose models are published
    expected = [row for row in read_finished(finished).rows if (row["setting"], row["seed"]) != ("flames", 0)]
    assert told.rows == expected


def test_words_and_further_settings_are_those_of_the_file_as_it_is_now(study, finished):
    text = (study / "tiny.toml").read_text()
    now = study / "now.toml"
    now.write_text(text.replace('title = "Two sites"', 'title = "North and south"') + ADDED)
    one = brought_up_to_date(read_finished(finished), [read_experiment(now)])
    assert (one.config.title, one.missing) == ("North and south", 2)
    now.write_text(text.replace('title = "Two sites"', 'title = "Other rounds"').replace("rounds = 2", "rounds = 3"))
    assert brought_up_to_date(read_finished(finished), [read_experiment(now)]).config.title == "Two sites"


def test_images_that_are_listed_apart_may_be_of_one_patient(study):
    config = read_experiment(study / "tiny.toml")
    north = config.sites[0].model_copy(update={"patient_pattern": "p-case[0-9]", "patients": (0, 4)})
    site = read_site(north, config.contract(), study / "data")
    assert [case.patient for case in site.training] == ["p-case0", "p-case1"]
    merged = north.model_copy(update={"patient_pattern": "p-case"})
    with pytest.raises(BadInputError, match="has 1 patients, of which 2 are held out"):
        read_site(merged, config.contract(), study / "data")
    with pytest.raises(BadInputError) as refused:
        read_site(north.model_copy(update={"patient_pattern": "q"}), config.contract(), study / "data")
    assert refused.value.code == "experiment.patient-pattern"
    with pytest.raises(ValidationError, match="no regular expression"):
        ExperimentSite.model_validate(north.model_dump() | {"patient_pattern": "("})


def test_results_of_another_experiment_are_not_mixed_in(fedseg, study, finished, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text((study / "tiny.toml").read_text().replace("rounds = 2", "rounds = 3"))
    done = fedseg("experiment", changed, "--out", finished, "--data", study / "data")
    assert done.code == 3
    assert "experiment.other-folder" in done.err


def test_words_and_goals_may_be_mended_afterwards(study, finished):
    text = (study / "tiny.toml").read_text()
    mended = study / "mended.toml"
    words = 'title = "Mended"\nfindings = ["Looked into."]'
    mended.write_text(re.sub(r"^title = .*", words.replace("\n", r"\n"), text, count=1, flags=re.MULTILINE))
    config = read_experiment(mended)
    before = json.loads((finished / "results.json").read_text())
    run = ExperimentRun(config, read_sites(config, study / "data"), "quick", finished, choose_device("cpu"))
    assert run.run(Progress())["rows"] == before["rows"]
    assert json.loads((finished / "experiment.json").read_text())["title"] == "Mended"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (('dataset = "phantoms"', 'dataset = "nowhere"'), "experiment.data-absent"),
        (("patients = [3, 5]", "patients = [4, 5]"), "experiment.too-few-patients"),
        (("patients = [3, 5]", "patients = [2, 5]"), "experiment.patient-twice"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(fedseg, study, tmp_path, change, code):
    assert change[0] in EXPERIMENT
    broken = tmp_path / "broken.toml"
    broken.write_text(EXPERIMENT.replace(*change))
    done = fedseg("experiment", broken, "--out", tmp_path / "out", "--data", study / "data")
    assert done.code == 3
    assert code in done.err


def test_an_unknown_budget_is_refused(fedseg, study, tmp_path):
    done = fedseg("experiment", study / "tiny.toml", "--out", tmp_path / "out", "--budget", "huge")
    assert done.code == 3
    assert "experiment.unknown-budget" in done.err


def test_the_shipped_experiment_splits_the_real_images_by_patient(real_data):
    config = read_experiment(Path(__file__).resolve().parents[2] / "experiments" / "abdomen.toml")
    sites = read_sites(config, real_data)
    assert [(site.name, len(site.training), len(site.test)) for site in sites] == [
        ("ct-a", 3, 2),
        ("ct-b", 2, 2),
        ("mr-a", 4, 2),
        ("mr-b", 4, 2),
    ]
    parts = [{case.patient for case in part} for site in sites for part in (site.training, site.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 21
    for site in sites:
        for case in (*site.training, *site.test):
            # liver on the patient's right (small LPS x), spleen on the left; in all of them
            present = case.labels.array[0]
            right, left = ((present == value).nonzero()[2].mean() for value in (1, 4))
            x = [case.image.grid.affine()[0, 0] * place for place in (right, left)]
            assert x[0] < x[1], (site.name, case.case_id)


@pytest.mark.parametrize("name", ["fedgs", "fedgs-liver", "flames"])
def test_shipped_experiments_find_their_real_pictures(real_data, name):
    config = read_experiment(Path(__file__).resolve().parents[2] / "experiments" / f"{name}.toml")
    contract = config.contract()
    for described, site in zip(config.sites, read_sites(config, real_data), strict=True):
        for turn in range(len(config.seeds)):
            turned = site.rotated(turn)
            trained, tested = ({case.patient for case in part} for part in (turned.training, turned.test))
            assert not trained & tested, site.name
            assert len(trained | tested) == len({case.patient for case in (*site.training, *site.test)})
        first = prepare(
            site.test[0].image, config.federation_of(config.default, "quick", 0).preprocessing_of(site.modality)
        )
        assert first.image.shape[0] == (3 if site.modality == "ES" else 1)
        assert float(first.image.max()) > 0.5
        values = {int(value) for case in site.test for value in np.unique(case.labels.array)}
        taught = {contract.value_of(label) for label, own in described.mapping.items() if own != "not annotated"}
        assert values == {0, *taught}, site.name


@pytest.fixture(autouse=True)
def _no_folder_left_half_written(tmp_path):
    yield
    assert not list(tmp_path.rglob(".writing-*"))
    shutil.rmtree(tmp_path, ignore_errors=True)
