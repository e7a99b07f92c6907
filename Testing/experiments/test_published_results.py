"""docs/results.md says what the kept result files say, and nothing else."""

import gzip
from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import read_experiment
from FedSegCore.experiments.kept import Finished, read_finished
from FedSegCore.experiments.report import write_experiment_report
from FedSegCore.experiments.result_tables import comparison_table
from FedSegCore.experiments.statistics import case_values, chosen_rows

ROOT = Path(__file__).resolve().parents[2]


def test_the_published_page_is_the_commands(fedseg, tmp_path):
    docs = ROOT / "docs"
    kept = sorted((docs / "results").glob("*.json.gz"))
    assert kept
    assert all(file.stat().st_size < 300_000 for file in kept)
    out = tmp_path / "results.md"
    done = fedseg("results", *kept, "--experiments", ROOT / "experiments", "--out", out)
    assert done.code == 0, done.err
    assert out.read_text(encoding="utf-8") == (docs / "results.md").read_text(encoding="utf-8")
    drawn = {path.stem for path in (tmp_path / "results").glob("*.svg")}
    assert drawn == {path.stem for path in (docs / "results").glob("*.svg")}


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json.gz")), ids=lambda path: path.name)
def test_every_table_has_a_reference_that_was_tested_on_its_images(path):
    finished = read_finished(path)
    config = read_experiment(ROOT / "experiments" / f"{finished.config.name}.toml")
    for modality in finished.modalities:
        assert case_values(chosen_rows(finished.rows, modality=modality), config.reference_of(modality)), modality


def test_where_a_setting_is_not_tested_on_a_modality_another_is_the_reference_there(tmp_path):
    kept = read_finished(ROOT / "docs" / "results" / "fedgin-transfer-quick.json.gz")
    one = Finished(read_experiment(ROOT / "experiments" / "fedgin-transfer.toml"), kept.results)
    for modality, name in (
        ("MR", "spatial, CT sites only, tested on MR"),
        ("CT", "spatial, MR sites only, tested on CT"),
    ):
        head, _, *lines = comparison_table(one, modality).splitlines()
        assert f"Against “{name}”" in head
        assert sum("[" in line for line in lines) == 4
    write_experiment_report(one.config, one.results, tmp_path / "report.html")
    words = "Against “spatial, CT sites only, tested on MR” or “spatial, MR sites only, tested on CT” (95 % interval)"
    assert words in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:40] + bytes(40) + data[80:],
        lambda data: data[: len(data) // 2],
        lambda _data: gzip.compress(b"[]"),
        lambda _data: gzip.compress(b'{"experiment": {"name": "x"}, "results": {}}'),
    ],
    ids=["bytes lost", "cut short", "another list", "another experiment"],
)
def test_a_damaged_file_of_kept_results_is_told(tmp_path, damage):
    kept = sorted((ROOT / "docs" / "results").glob("*.json.gz"))[0]
    (tmp_path / kept.name).write_bytes(damage(kept.read_bytes()))
    with pytest.raises(BadInputError) as caught:
        read_finished(tmp_path / kept.name)
    assert caught.value.code == "experiment.no-results"
