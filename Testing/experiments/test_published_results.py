"""docs/results.md says what the kept result files say, and nothing else."""

from pathlib import Path

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
