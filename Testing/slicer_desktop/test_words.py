"""What the Segment tab says of a release, by hand."""

import pytest
from FedSegSlicerLib.FederationWords import folderWords
from FedSegSlicerLib.Parameters import SURE, ModalityChoice
from FedSegSlicerLib.ReadyCheck import Choices
from FedSegSlicerLib.SegmentTypes import Expectation, Release
from FedSegSlicerLib.WordsForPeople import cardWords, expectationWords, listedWords, newsWords, releaseWords

pytestmark = pytest.mark.slicer


def test_the_module_asks_where_the_core_would():
    modality = pytest.importorskip("FedSegCore.volumes.modality")
    assert modality.SURE == SURE


ROW = {
    "id": "liver-CT-v3",
    "name": "liver-CT",
    "version": 3,
    "modalities": ["CT"],
    "labels": ["liver", "spleen"],
    "federation": "liver <study>",
    "rule": "flames",
    "rounds": 12,
    "sites": 4,
    "training_cases": 87,
    "created": "2026-03-01T12:00:00+00:00",
    "signer": "371D-43FE-72FA-1207-8FCF",
    "trusted": True,
    "own_models": False,
    "scores": [
        {"label": "liver", "metric": "dice", "mean": 0.912, "standard_deviation": 0.034, "cases": 21},
        {"label": "liver", "metric": "iou", "mean": 0.84, "standard_deviation": 0.05, "cases": 21},
        {"label": "spleen", "metric": "dice", "mean": 0.9, "standard_deviation": 0.1, "cases": 20},
    ],
}


def test_the_card_tells_origin_and_evidence():
    release = Release.fromWorker(ROW)
    words = cardWords(release)
    for told in (
        "<b>liver-CT-v3</b>",
        "the federation liver &lt;study&gt; (flames) on 2026-03-01",
        "87 cases of 4 sites in 12 rounds",
        "Signed by 371D-43FE-72FA-1207-8FCF, the coordinator of this computer's site.",
        "liver: Dice 0.91 ± 0.03 in 21 cases",
        "spleen: Dice 0.90 ± 0.10 in 20 cases",
        "before the last round",
    ):
        assert told in words
    assert "0.84" not in words
    assert "Mean Dice there: 0.91." in releaseWords(release)


def test_scores_of_the_sites_own_models_are_not_told_as_those_of_the_release():
    release = Release.fromWorker({**ROW, "own_models": True})
    assert "Mean Dice of the sites' own models: 0.91." in releaseWords(release)
    assert cardWords(release).endswith(
        "Scores are of the sites' own models before the last round; this model was made of them all."
    )


def test_what_came_of_a_folder_is_told_with_the_reasons():
    left = [{"name": f"p{n}", "code": "case.duplicate", "words": "It is there <already>."} for n in range(7)]
    words = folderWords({"added": 12, "left_out": left})
    assert words.startswith(
        "12 cases were added, 7 left out.<br>p0: It is there &lt;already&gt;. <small>case.duplicate"
    )
    assert "p4" in words
    assert "p5" not in words
    assert words.endswith("and 2 more")
    assert folderWords({"added": 1, "left_out": []}) == "1 cases were added, 0 left out."


def test_an_unknown_signer_is_said_in_the_list_and_on_the_card():
    known, strange = Release.fromWorker(ROW), Release.fromWorker({**ROW, "trusted": False})
    assert listedWords(known) == "liver-CT, version 3"
    assert listedWords(strange) == "liver-CT, version 3 (signer unknown)"
    assert "<b>Signer unknown</b>: 371D-43FE-72FA-1207-8FCF." in cardWords(strange)
    assert "Signer unknown" not in cardWords(known)


def test_what_has_come_is_only_said_to_be_in_the_list_where_it_is():
    release = Release.fromWorker(ROW)
    choices = Choices(modality=ModalityChoice.CT, releases=[release])
    assert newsWords("liver-CT-v3", choices).endswith("liver-CT-v3. It is in the list above.")
    choices.modality = ModalityChoice.MR
    assert newsWords("liver-CT-v3", choices).endswith("It is for CT images: choose one, and it is in the list.")
    choices.releases = None  # still being looked for
    assert newsWords("liver-CT-v3", choices).endswith("</b> liver-CT-v3.")


def test_a_card_without_scores_says_so():
    assert cardWords(Release.fromWorker({**ROW, "scores": []})).endswith("No scores.")


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (
            Expectation(0, None, None, 8 * 10**9),
            "How long it takes here is unknown until the first run with this model.",
        ),
        (
            Expectation(1, 0.2, 38 * 10**6, 8 * 10**9),
            "Expect about 1 s and 38 MB of memory, as in one earlier run here.",
        ),
        (
            Expectation(4, 130.0, 9_310_000_000, 2 * 10**9),
            (
                "Expect about 2 min and 9.3 GB of memory, as in 4 earlier runs here. "
                "Only 2.0 GB are free: close other programs first."
            ),
        ),
    ],
)
def test_what_a_run_may_take_is_said_in_numbers_that_are_not_nought(expectation, words):
    assert expectationWords(expectation) == words
