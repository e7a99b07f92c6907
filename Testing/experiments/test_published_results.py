"""docs/results.md says what the kept result files say, and nothing else."""

import gzip
from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.kept import read_finished

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
