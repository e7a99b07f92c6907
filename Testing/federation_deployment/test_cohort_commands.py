"""``fedseg site cohort``: the store of cases as a user types it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from own_cases import AGREED, contract_toml, offer, phantom

from FedSegCore.federation.site.case_intake import CaseOffer
from FedSegCore.federation.site.cohort_index import Consent, StoredCase
from FedSegCore.federation.site.cohort_store import CohortStore
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.segmentation_file import write_segmentation
from FedSegCore.volumes.writing import write_volume


def test_the_commands_of_the_cohort(empty_site, given, tmp_path, fedseg: Callable[..., SimpleNamespace]):
    site = empty_site.path
    lone = fedseg("site", "cohort", "add", site, given / "image.nrrd", given / "labels.seg.nrrd", "--patient", "p")
    assert (lone.code, "store.no-contract" in lone.err) == (3, True)
    (tmp_path / "f.toml").write_text('name = "f"\n' + contract_toml())
    told = ("--contract", tmp_path / "f.toml")
    listed = [
        {"case": f"c{n}", "patient": f"q{n}", "image": image, "labels": "labels.nii.gz"}
        for n, image in enumerate(("image.nrrd", "absent.nrrd"))
    ]
    (given / "cohort.json").write_text(json.dumps({"modality": "CT", "cases": listed}))
    done = fedseg(
        *("site", "cohort", "import", site, given / "cohort.json", *told, "--consent-by", "Dr Grey", "--json")
    )
    assert done.code == 0
    assert json.loads(done.out)["refused"] == {"c1": "image.missing"}
    (case,) = json.loads(done.out)["added"]
    twice = fedseg(
        *("site", "cohort", "add", site, given / "image.nrrd", given / "labels.seg.nrrd", "--patient", "p", "--json")
    )
    assert (twice.code, json.loads(twice.out)["findings"][0]["code"]) == (3, "case.duplicate")
    assert "the same image" in twice.err.lower()
    shown = fedseg("site", "cohort", "list", site)
    assert all(words in shown.err for words in (case, "q0", "Dr Grey", "1 cases to train on"))
    assert fedseg("site", "cohort", "check", site).code == 0
    assert fedseg("site", "cohort", "revoke", site, case).code == 0
    assert "taken back" in fedseg("site", "cohort", "list", site).err
    assert fedseg("site", "cohort", "consent", site, case, "--by", "Dr Grey", "--on", "2026-03-01").code == 0
    assert (
        json.loads(fedseg("site", "cohort", "list", site, "--json").out)["cases"][0]["consents"][-1]["revoked"] is None
    )
    (site / "store" / "cases" / case / "image.nrrd").write_bytes(b"damaged")
    assert "cohort.bad-cases" in fedseg("site", "cohort", "check", site).err
    assert fedseg("site", "cohort", "remove", site, case).code == 0
    assert fedseg("site", "cohort", "remove", site, case).code == 2
    assert "consent given" in fedseg("site", "journal", site).err


def test_a_cancelled_import_does_not_say_that_nothing_was_changed(
    empty_site, store, given, fedseg, monkeypatch: pytest.MonkeyPatch
):
    add = CohortStore.add

    def add_and_cancel(self: CohortStore, offered: CaseOffer, consent: Consent | None) -> StoredCase:
        added = add(self, offered, consent)
        signal.raise_signal(signal.SIGINT)
        return added

    monkeypatch.setattr(CohortStore, "add", add_and_cancel)
    listed = [{"case": f"c{n}", "patient": f"q{n}", "image": "image.nrrd", "labels": "labels.nii.gz"} for n in (0, 1)]
    (given / "cohort.json").write_text(json.dumps({"modality": "CT", "cases": listed}))
    (given / "f.toml").write_text('name = "f"\n' + contract_toml())
    told = ("--contract", given / "f.toml", "--consent-by", "Dr Grey")
    done = fedseg("site", "cohort", "import", empty_site.path, given / "cohort.json", *told)
    assert done.code == 130
    assert len(store.index().cases) == 1
    assert "What was finished before stays" in done.err
    assert "Nothing was changed" not in done.err


def test_words_are_printed_as_they_are(empty_site, store, given, tmp_path, fedseg):
    """Brackets and colons are markup to what prints."""
    store.add(offer(given, patient="[red]Doe[/x]", title=":smile:[/b].nrrd"), AGREED.model_copy(update={"by": "[/i]"}))
    shown = fedseg("site", "cohort", "list", empty_site.path)
    assert shown.code == 0
    assert all(words in shown.err for words in ("[red]Doe[/x]", ":smile:[/b].nrrd", "[/i]"))
    (tmp_path / "f.toml").write_text('name = "f"\naggregation = { options = { "a[/x]" = 1 } }\n' + contract_toml())
    refused = fedseg("site", "cohort", "check", empty_site.path, "--contract", tmp_path / "f.toml")
    assert refused.code == 3
    assert all(words in refused.err for words in ("a[/x]", "Correct [aggregation.options]."))


def test_the_command_adds_a_folder(empty_site, fedseg, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    image, labels = phantom()
    write_volume(image, images / "p0.nrrd")
    write_volume(labels, images / "p0-label.nrrd")
    CohortStore(empty_site, TORSO_CONTRACT).add(offer_of(tmp_path))  # the store knows the contract from now on
    order = ["site", "cohort", "folder", empty_site.path, images]
    order += ["--modality", "CT", "--consent-by", "Dr Grey", "--json"]
    for value, label in enumerate(TORSO_CONTRACT.labels, 1):
        order += ["--map", f"{label.name}={value}"]
    done = fedseg(*order)
    assert done.code == 0
    told = json.loads(done.out)
    assert (len(told["added"]), told["refused"]) == (1, {})
    assert "1 cases were added, 0 left out." in done.err


def test_the_command_takes_back_what_was_declared(empty_site, store, given, fedseg):
    write_segmentation(phantom()[1], TORSO_CONTRACT.labels[:4], given / "four.seg.nrrd")
    case = store.add(offer(given, labels="four.seg.nrrd", naming={"lesion": "not annotated"}))
    store.remove(case.case)
    order = (
        "site",
        "cohort",
        "add",
        empty_site.path,
        given / "image.nrrd",
        given / "labels.seg.nrrd",
        "--patient",
        "p",
    )
    refused = fedseg(*order)
    assert (refused.code, "case.label-declared" in refused.err) == (3, True)
    assert fedseg(*order, "--by-name", "lesion").code == 0
    assert "lesion" in store.index().cases[0].annotated


def offer_of(folder: Path) -> CaseOffer:
    """A case of another patient."""
    image, labels = phantom(seed=9)
    write_volume(image, folder / "other.nrrd")
    write_segmentation(labels, TORSO_CONTRACT.labels, folder / "other.seg.nrrd")
    return CaseOffer(folder / "other.nrrd", folder / "other.seg.nrrd", "other")
