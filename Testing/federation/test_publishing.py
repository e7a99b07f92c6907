"""What a release's card says of a run: what its model was trained on, and how well it did; expected by hand."""

from dataclasses import replace

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.models.release import open_release
from FedSegCore.models.signing import load_or_make_key
from FedSegCore.worker.listing import list_for_people


def finish(run: Run) -> FederationOutcome:
    run.loop().run()
    return FederationOutcome.load(run.folder)


def published(outcome: FederationOutcome, tmp_path) -> dict[str, object]:
    """Group → model card, read back from the release."""
    paths = publish_outcome(outcome, tmp_path / "releases", load_or_make_key(tmp_path / "key"))
    return {group: open_release(path).card for group, path in paths.items()}


def test_a_modality_whose_sites_never_answered_is_not_on_the_card(tmp_path):
    trainers = {"ct": AddingTrainer(), "us": AddingTrainer("US", wrong={1: "raise", 2: "raise"})}
    outcome = finish(Run(tmp_path / "run", federation(rounds=2, grouping="together"), trainers))
    card = published(outcome, tmp_path)["all"]
    assert list(card.modalities) == ["CT"]
    assert [(site.site, site.rounds_answered) for site in card.sites] == [("ct", 2), ("us", 0)]
    (row,) = list_for_people(tmp_path / "releases", None, Progress())["releases"]
    # who was asked and gave nothing has trained nothing
    assert (row["sites"], row["training_cases"]) == (1, card.sites[0].training_cases)


def test_a_site_that_comes_back_as_another_modality_stays_in_its_group_what_it_was_asked_as(tmp_path):
    run = Run(tmp_path / "run", federation(rounds=2), {name: AddingTrainer() for name in ("a", "b", "x")})
    run.nodes["b"].delay_s, run.nodes["x"].delay_s = 20.0, 15.0
    sleep = run.clock.sleep

    def gone(_):
        run.nodes["x"].online = False

    def sleep_and_come_back(seconds: float) -> None:
        sleep(seconds)
        if run.kinds("site-left"):
            run.trainers["x"].modality, run.nodes["x"].online = "ES", True

    run.hooks["round-started", "CT", 2] = gone
    run.clock.sleep = sleep_and_come_back
    outcome = finish(run)
    assert [event.data["modality"] for event in run.kinds("site-joined") if event.site == "x"] == ["CT", "ES"]
    assert {name: m.introduction.modality for name, m in outcome.groups["CT"].members.items()} == {
        "a": "CT", "b": "CT", "x": "CT"}  # fmt: skip
    assert list(published(outcome, tmp_path)["CT"].modalities) == ["CT"]


def test_where_one_group_cannot_be_published_none_is(tmp_path):
    outcome = finish(Run(tmp_path / "run", federation(rounds=1), {"ct": AddingTrainer(), "us": AddingTrainer("US")}))
    broken = replace(outcome.groups["US"], model={"a": np.full((2, 3), np.nan, np.float32)})
    for _ in range(2):
        with pytest.raises(BadInputError, match=r"release\.weights-malformed"):
            published(replace(outcome, groups={**outcome.groups, "US": broken}), tmp_path)
    assert {group: card.version for group, card in published(outcome, tmp_path).items()} == {"CT": 1, "US": 1}


def test_a_group_in_which_nobody_was_asked_is_no_model(tmp_path):
    run = Run(tmp_path / "run", federation(rounds=1, grouping="together"), {"ct": AddingTrainer()})
    run.participation = lambda *_: False
    with pytest.raises(BadInputError, match=r"release\.nothing-to-publish"):
        published(finish(run), tmp_path)


def dice_on(card) -> tuple[float, float, int]:
    (found,) = [score for score in card.scores if score.metric == "dice"]
    return found.mean, found.standard_deviation, found.cases


def test_scores_on_the_card_are_those_of_the_last_round_only(tmp_path):
    # round n is scored 0.1 n: a and d in rounds 1 to 3, b in 1 and 2, c in 1 alone
    trainers = {name: AddingTrainer(wrong={3: "raise"} if name == "b" else {}) for name in "abcd"}
    run = Run(tmp_path / "run", federation(), trainers)
    run.participation = lambda site, number: site != "c" or number == 1
    card = published(finish(run), tmp_path)["CT"]
    assert dice_on(card) == pytest.approx((0.3, 0.0, 2))
    assert not card.own_models


def test_a_last_round_without_scores_leaves_those_of_the_round_before(tmp_path):
    class ScoresOnce(AddingTrainer):
        def train_round(self, task, weights, request):
            result = super().train_round(task, weights, request)
            return result if request.round_number == 1 else replace(result, scores=())

    outcome = finish(Run(tmp_path / "run", federation(rounds=2), {"a": ScoresOnce()}))
    assert dice_on(published(outcome, tmp_path)["CT"]) == pytest.approx((0.1, 0.0, 1))


def test_the_card_says_that_sites_scored_models_of_their_own(tmp_path):
    config = federation(rounds=1, aggregation={"rule": "flames"})
    outcome = finish(Run(tmp_path / "run", config, {"a": AddingTrainer(), "b": AddingTrainer()}))
    assert published(outcome, tmp_path)["CT"].own_models
    assert list_for_people(tmp_path / "releases", None, Progress())["releases"][0]["own_models"]


def test_sites_are_told_which_labels_the_group_has_been_taught(tmp_path):
    asked = []

    class Annotating(AddingTrainer):
        def train_round(self, task, weights, request):
            asked.append((request.round_number, request.trained_values))
            return replace(super().train_round(task, weights, request), annotated=(1,))

    finish(Run(tmp_path / "run", federation(rounds=2), {"a": Annotating(), "b": AddingTrainer()}))
    assert asked == [(1, ()), (2, (1,))]
