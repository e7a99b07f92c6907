"""Sites that pause for a night, or may not work any more today, find their group again."""

import pytest
from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.common.errors import CannotDoHereError, FedSegError
from FedSegCore.federation.aggregation.robust import Median
from FedSegCore.federation.outcome import FederationOutcome


def test_a_group_whose_only_site_pauses_for_the_night_goes_on_in_the_morning(tmp_path):
    run = Run(tmp_path, federation(return_deadline_s=50_000.0), {"ct": AddingTrainer()})
    run.hooks["round-closed", "CT", 1] = lambda event: setattr(run.nodes["ct"], "online", False)
    sleep, hours = run.clock.sleep, 3600.0

    def until_morning(seconds):
        sleep(seconds)
        run.nodes["ct"].online = run.nodes["ct"].online or run.clock() > 10 * hours

    run.clock.sleep = until_morning
    run.loop().run()
    outcome = FederationOutcome.load(tmp_path)
    assert (outcome.groups["CT"].rounds, outcome.groups["CT"].done) == (3, True)
    assert 10 * hours < run.clock() < 10 * hours + 10.0
    assert [event.message for event in run.kinds("waiting")] == ["CT, round 2 of 3: waiting for 1 more CT site."]


@pytest.mark.parametrize(("deadline_s", "rounds"), [(50_000.0, 3), (2_000.0, 1)])
def test_a_site_that_has_worked_enough_for_today_is_asked_again_later(tmp_path, deadline_s, rounds):
    tired = AddingTrainer()
    train = tired.train_round

    def only_early_or_tomorrow(task, weights, request):
        if request.round_number == 2 and run.clock() < 3600.0:
            raise FedSegError("policy.hours", "It has worked enough.", "Tomorrow.")
        return train(task, weights, request)

    tired.train_round = only_early_or_tomorrow
    run = Run(tmp_path, federation(return_deadline_s=deadline_s), {"ct": tired})
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].rounds == rounds
    asked = [event for event in run.kinds("round-started") if event.round_number == 2]
    # every ten minutes for an hour; or four times within the deadline, and three that count as failures
    assert len(asked) == 7


def test_a_site_that_paused_for_a_minute_is_asked_as_soon_as_it_is_back(tmp_path):
    pausing = AddingTrainer()
    train = pausing.train_round
    back_at: list[float] = []

    def pause_once(task, weights, request):
        if request.round_number == 2 and not back_at:
            back_at.append(run.clock() + 60.0)
            run.nodes["ct"].online = False
            raise FedSegError("site.paused", "It pauses.", "Wait.")
        return train(task, weights, request)

    pausing.train_round = pause_once
    run = Run(tmp_path, federation(), {"ct": pausing})
    sleep = run.clock.sleep

    def resume_after_a_minute(seconds):
        sleep(seconds)
        run.nodes["ct"].online = not back_at or run.clock() >= back_at[0]

    run.clock.sleep = resume_after_a_minute
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    assert 60.0 <= run.clock() < 90.0


def test_a_rule_that_can_make_nothing_of_the_answers_costs_its_own_group_only(tmp_path):
    sites = {f"{kind}-{number}": AddingTrainer(kind) for kind in ("CT", "MR") for number in range(3)}
    sites["CT-0"].wrong = {2: "code"}
    config = federation(min_sites=3, aggregation={"rule": "flower", "options": {"strategy": "Bulyan"}})
    run = Run(tmp_path, config, sites)
    run.loop().run()
    outcome = FederationOutcome.load(tmp_path)
    assert (outcome.groups["CT"].rounds, outcome.groups["MR"].rounds) == (1, 3)
    failed = [event.message for event in run.kinds("round-failed")]
    why = "CT, round 2 of 3: the answers could not be combined (Bulyan needs 3 answers, 2 were of use)."
    assert failed == [why] * 3
    ended = {event.group: event.code for event in run.kinds("group-finished")}
    assert ended == {"CT": "group.all-failed", "MR": ""}


def test_whatever_a_rule_raises_at_the_end_of_a_round_is_a_failed_round(tmp_path, monkeypatch):
    run = Run(tmp_path, federation(), {"ct": AddingTrainer()})
    finish, tries = Median.finish, []

    def fails_once(self):
        tries.append(1)
        if len(tries) == 2:
            raise KeyError("w")
        return finish(self)

    monkeypatch.setattr(Median, "finish", fails_once)
    run.config = federation(aggregation={"rule": "median"})
    run.loop().run()
    group = FederationOutcome.load(tmp_path).groups["CT"]
    assert (group.rounds, float(group.model["b"][0])) == (3, 3.0)
    assert [event.message for event in run.kinds("round-failed")] == [
        "CT, round 2 of 3: the answers could not be combined (KeyError)."
    ]


def test_no_round_starts_with_fewer_sites_than_answers_are_needed(tmp_path):
    alone = AddingTrainer()
    run = Run(tmp_path, federation(min_answers=3, return_deadline_s=1000.0), {"a": alone})
    with pytest.raises(CannotDoHereError, match=r"federation\.nothing-trained"):
        run.loop().run()
    assert alone.received == {}
    assert [event.message for event in run.kinds("waiting")] == ["CT, round 1 of 3: waiting for 2 more CT sites."]
    assert [event.code for event in run.kinds("group-finished")] == ["group.no-sites"]
    assert 1000.0 <= run.clock() < 1102.0


def test_a_group_goes_on_when_enough_sites_are_there_again(tmp_path):
    run = Run(
        tmp_path, federation(min_answers=2, return_deadline_s=5000.0), {"a": AddingTrainer(), "b": AddingTrainer()}
    )
    run.hooks["round-closed", "CT", 1] = lambda event: setattr(run.nodes["b"], "online", False)
    sleep = run.clock.sleep

    def until_b_is_back(seconds):
        sleep(seconds)
        run.nodes["b"].online = run.nodes["b"].online or run.clock() > 3600.0

    run.clock.sleep = until_b_is_back
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    assert 3600.0 < run.clock() < 3610.0


def test_of_too_few_answers_nothing_is_made_sent_or_kept(tmp_path):
    sites = {
        "a": AddingTrainer(step=4.0),
        "b": AddingTrainer(wrong={2: "code"}),
        "c": AddingTrainer(wrong={2: "raise"}),
    }
    run = Run(tmp_path, federation(min_answers=2), sites)
    run.loop().run()
    group = FederationOutcome.load(tmp_path).groups["CT"]
    # (4 + 1 + 1) / 3, of round 1
    assert (group.rounds, float(group.model["b"][0]), float(sites["b"].received[2]["b"][0])) == (1, 2.0, 2.0)
    why = "CT, round 2 of 3: only 1 of 2 needed sites gave a usable answer."
    assert [event.message for event in run.kinds("round-failed")] == [why] * 3
    assert [event.code for event in run.kinds("group-finished")] == ["group.all-failed"]
    assert not (tmp_path / "state" / "CT" / "working").exists()


def test_sites_whose_answers_are_needed_are_asked_though_they_were_late(tmp_path):
    run = Run(tmp_path, federation(min_answers=2, rounds=1), {"a": AddingTrainer(), "b": AddingTrainer()})
    run.nodes["b"].silent = True
    run.hooks["round-failed", "CT", 1] = lambda _: setattr(run.nodes["b"], "silent", len(run.kinds("round-failed")) < 2)
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    assert [len(event.data["sites"]) for event in run.kinds("round-started")] == [2, 2, 2]


def test_a_site_that_must_rest_is_waited_for_where_its_answer_is_needed(tmp_path):
    tired = AddingTrainer()
    train = tired.train_round

    def only_tomorrow(task, weights, request):
        if run.clock() < 3600.0:
            raise FedSegError("policy.hours", "It has worked enough.", "Tomorrow.")
        return train(task, weights, request)

    tired.train_round = only_tomorrow
    config = federation(min_answers=2, rounds=1, return_deadline_s=50_000.0)
    run = Run(tmp_path, config, {"a": AddingTrainer(), "b": tired})
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    why = "CT, round 1 of 1: too few sites may train now; they are asked again later."
    assert [event.message for event in run.kinds("round-failed")] == [why] * 6
