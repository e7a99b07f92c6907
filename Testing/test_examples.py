"""The files in ``examples`` can be used as they are, and are explained."""

from pathlib import Path

from FedSegCore.federation.config import read_federation_config
from FedSegCore.federation.site.cohort_file import CohortCase, CohortDescription, read_cohort_file
from FedSegCore.federation.tasks import training_task

ROOT = Path(__file__).resolve().parents[1]
FEDERATION, COHORT = ROOT / "examples" / "federation.toml", ROOT / "examples" / "cohort.json"


def test_the_federation_can_be_trained_and_invited_to(fedseg, tmp_path):
    config = read_federation_config(FEDERATION)
    for modality in ("CT", "MR"):
        task = training_task(config, modality)
        assert task.network.dimensions == 3
        assert task.preprocessing.modality == modality
    coordinator = tmp_path / "coordinator"
    made = fedseg("coordinator", "init", coordinator, "--federation", "abdomen", "--host", "localhost")
    assert made.code == 0, made.err
    invited = fedseg("coordinator", "invite", coordinator, FEDERATION, "--out", tmp_path / "invitation.json")
    assert invited.code == 0, invited.err


def test_the_cohort_is_one_of_that_federation():
    contract, cohort = read_federation_config(FEDERATION).contract, read_cohort_file(COHORT)
    assert (cohort.count("train"), cohort.count("validation")) == (2, 1)
    assert cohort.mapping is not None
    assert cohort.mapping.annotated(contract) == (1, 2, 3)
    assert [case.mapping.annotated(contract) for case in cohort.cases if case.mapping] == [(1, 2, 3, 4)]


def test_every_entry_of_a_cohort_file_is_explained_and_that_it_goes_round_the_store():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("## The cohort file")[2].partition("\n## ")[0]
    for name in ("modality", "mapping.values", *(f"cases[].{name}" for name in CohortCase.model_fields)):
        assert f"`{name}`" in section, name
    assert set(CohortDescription.model_fields) == {"modality", "mapping", "cases"}
    assert "store.own-cohort" in section


def test_the_readme_joins_with_the_store_and_names_the_examples():
    """Its next commands work on the store, which a site with a cohort file of its own has not."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (join,) = [line for line in readme.splitlines() if line.strip().startswith("fedseg site join")]
    assert "--cohort" not in join
    for file in (FEDERATION, COHORT):
        assert f"({file.relative_to(ROOT).as_posix()})" in readme
