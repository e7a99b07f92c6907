"""The loop on a local grid with a clock of its own: deadlines, failures, late joiners, restarts."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation, make_model
from flwr.proto.node_pb2 import NodeInfo
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError, CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.events import read_events
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.rounds import FederationLoop


def codes(outcome, group, number):
    return {row.site: row.code for row in outcome.groups[group].history if row.round_number == number}


def finish(run) -> FederationOutcome:
    run.loop().run()
    return FederationOutcome.load(run.folder)


def test_groups_by_modality_average_their_own_sites(tmp_path):
    run = Run(
        tmp_path,
        federation(),
        {"ct-1": AddingTrainer(step=1.0), "ct-2": AddingTrainer(step=4.0, examples=20), "mr-1": AddingTrainer("MR")},
    )
    outcome = finish(run)
    # CT moves by (1·10 + 4·20)/30 = 3 a round
    assert_array_equal(outcome.groups["CT"].model["b"], np.full(4, 9.0, np.float32))
    assert_array_equal(outcome.groups["MR"].model["b"], np.full(4, 3.0, np.float32))
    assert outcome.groups["CT"].model["steps"] == 3
    assert outcome.groups["CT"].done
    assert outcome.groups["CT"].rounds == 3
    assert {name: member.rounds_answered for name, member in outcome.groups["CT"].members.items()} == {
        "ct-1": 3,
        "ct-2": 3,
    }
    # every site trained on the group's model
    assert_array_equal(run.trainers["ct-1"].received[2]["b"], np.full(4, 3.0, np.float32))
    rows = outcome.groups["CT"].score_rows()
    assert len(rows) == 6
    assert rows[0] == {
        "group": "CT",
        "round": 1,
        "site": "ct-1",
        "case": "case-1",
        "label": "liver",
        "dice": 0.1,
        "iou": 0.05,
        "surface_distance_mm": None,
    }


def test_together_is_one_group(tmp_path):
    config = federation(grouping="together", rounds=1)
    outcome = finish(Run(tmp_path, config, {"ct": AddingTrainer(step=1.0), "mr": AddingTrainer("MR", step=3.0)}))
    assert list(outcome.groups) == ["all"]
    assert_array_equal(outcome.groups["all"].model["b"], np.full(4, 2.0, np.float32))


def test_flames_sends_every_site_its_own_mix(tmp_path):
    config = federation(aggregation={"rule": "flames", "options": {"alpha": 0.75}}, rounds=2)
    run = Run(tmp_path, config, {"a": AddingTrainer(step=4.0), "b": AddingTrainer(step=8.0)})
    outcome = finish(run)
    # round 1: a → 0.75·4 + 0.25·8 = 5, b → 0.75·8 + 0.25·4 = 7
    assert run.trainers["a"].received[2]["b"][0] == 5.0
    assert run.trainers["b"].received[2]["b"][0] == 7.0
    # round 2: a sends 9, b sends 15
    group = outcome.groups["CT"]
    assert group.model["b"][0] == 12.0
    assert group.model_of("a")["b"][0] == 10.5
    assert group.model_of("newcomer")["b"][0] == 12.0


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("raise", "site.failed"),
        ("code", "trainer.gone"),
        ("nan", "training.not-finite"),
        ("shape", "reply.shape"),
    ],
)
def test_a_site_that_goes_wrong_is_named_skipped_and_asked_again(tmp_path, wrong, code):
    bad = AddingTrainer(step=10.0, wrong={2: wrong})
    run = Run(tmp_path, federation(), {"bad": bad, "good": AddingTrainer(step=1.0)})
    outcome = finish(run)
    assert codes(outcome, "CT", 2) == {"bad": code, "good": ""}
    assert codes(outcome, "CT", 3) == {"bad": "", "good": ""}
    # 5.5 + 1 + 5.5
    assert outcome.groups["CT"].model["b"][0] == 12.0
    failed = run.kinds("site-failed")
    assert [(event.site, event.code, event.round_number) for event in failed] == [("bad", code, 2)]
    # nothing a site's exception says reaches the server
    assert "Doe" not in (tmp_path / "events.jsonl").read_text()


def test_a_nan_that_slips_through_the_sites_own_check_is_stopped_at_the_server(tmp_path, monkeypatch):
    monkeypatch.setattr("FedSegCore.federation.client_app.check_own_result", lambda result: None)
    run = Run(tmp_path, federation(rounds=1), {"bad": AddingTrainer(wrong={1: "nan"}), "good": AddingTrainer()})
    outcome = finish(run)
    assert codes(outcome, "CT", 1) == {"bad": "reply.not-finite", "good": ""}
    assert outcome.groups["CT"].model["b"][0] == 1.0


@pytest.mark.parametrize(("rule", "moved"), [("median", 2.0), ("trimmed_mean", 2.0), ("krum", 1.0)])
def test_robust_rules_read_the_updates_back_from_files(tmp_path, rule, moved):
    options = {"beta": 0.34} if rule == "trimmed_mean" else {}
    config = federation(rounds=1, aggregation={"rule": rule, "options": options})
    steps = {"a": 1.0, "b": 2.0, "c": 15.0}
    outcome = finish(Run(tmp_path, config, {name: AddingTrainer(step=step) for name, step in steps.items()}))
    assert_array_equal(outcome.groups["CT"].model["a"], np.full((2, 3), moved, np.float32))


def test_a_late_site_does_not_hold_the_round_beyond_its_deadline(tmp_path):
    run = Run(tmp_path, federation(), {"fast": AddingTrainer(step=1.0), "slow": AddingTrainer(step=9.0)})
    run.nodes["slow"].silent = True
    outcome = finish(run)
    assert codes(outcome, "CT", 1) == {"fast": "", "slow": "site.late"}
    # late once: asked again at once; late twice: left out of one round
    assert codes(outcome, "CT", 2) == {"fast": "", "slow": "site.late"}
    assert codes(outcome, "CT", 3) == {"fast": ""}
    assert 100.0 <= run.clock() < 103.0
    assert outcome.groups["CT"].model["b"][0] == 3.0


def test_groups_do_not_wait_for_each_other(tmp_path):
    run = Run(tmp_path, federation(), {"ct": AddingTrainer(), "mr": AddingTrainer("MR")})
    run.nodes["mr"].delay_s = 30.0
    finish(run)
    closed = [(event.group, event.round_number) for event in run.kinds("round-closed")]
    assert closed == [("CT", 1), ("CT", 2), ("CT", 3), ("MR", 1), ("MR", 2), ("MR", 3)]
    assert run.clock() == pytest.approx(90.0, abs=3.0)


def test_a_node_that_dies_in_a_round_is_skipped_and_comes_back(tmp_path):
    run = Run(tmp_path, federation(), {"a": AddingTrainer(step=1.0), "b": AddingTrainer(step=3.0)})
    run.hooks["round-started", "CT", 2] = lambda event: setattr(run.nodes["b"], "online", False)
    run.hooks["round-closed", "CT", 2] = lambda event: setattr(run.nodes["b"], "online", True)
    outcome = finish(run)
    assert codes(outcome, "CT", 2) == {"a": "", "b": "node.unavailable"}
    assert codes(outcome, "CT", 3) == {"a": "", "b": ""}
    assert outcome.groups["CT"].model["b"][0] == 5.0


def test_a_node_that_restarted_within_a_round_is_not_waited_for(tmp_path):
    run = Run(tmp_path, federation(rounds=2), {"a": AddingTrainer(step=1.0), "b": AddingTrainer(step=3.0)})
    node = run.nodes["b"]
    node.silent = True

    def vanish(event):
        # gone for the loop's next look only: the order is lost, and no error comes
        node.online = False
        run.loop_under_test._members.update(now_at_once=True)
        node.online = True

    run.hooks["site-answered", "CT", 1] = vanish
    run.hooks["round-closed", "CT", 1] = lambda event: setattr(node, "silent", False)
    run.loop_under_test = run.loop()
    run.loop_under_test.run()
    outcome = FederationOutcome.load(tmp_path)
    assert codes(outcome, "CT", 1) == {"a": "", "b": "node.restarted"}
    assert codes(outcome, "CT", 2) == {"a": "", "b": ""}
    assert run.clock() < 10.0


def test_a_late_joiner_takes_part_from_the_next_round(tmp_path):
    late = AddingTrainer(step=5.0)
    run = Run(tmp_path, federation(), {"early": AddingTrainer(step=1.0)})
    run.hooks["round-started", "CT", 2] = lambda event: run.add("late", late)
    outcome = finish(run)
    assert codes(outcome, "CT", 2) == {"early": ""}
    assert codes(outcome, "CT", 3) == {"early": "", "late": ""}
    assert late.received[3]["b"][0] == 2.0
    assert outcome.groups["CT"].model["b"][0] == 5.0


def test_a_group_waits_for_its_minimum_and_says_so(tmp_path):
    run = Run(tmp_path, federation(min_sites=2, rounds=1), {"ct-1": AddingTrainer()})
    run.hooks["waiting", "CT", 1] = lambda event: run.add("ct-2", AddingTrainer())
    outcome = finish(run)
    assert [event.message for event in run.kinds("waiting")] == ["CT, round 1 of 1: waiting for 1 more CT site."]
    assert codes(outcome, "CT", 1) == {"ct-1": "", "ct-2": ""}


def test_after_the_join_deadline_a_group_goes_on_with_what_it_has(tmp_path):
    run = Run(tmp_path, federation(min_sites=3, rounds=1), {"ct-1": AddingTrainer()})
    outcome = finish(run)
    assert outcome.groups["CT"].done
    assert 100.0 <= run.clock() < 102.0


def test_a_group_that_loses_all_sites_ends_with_what_it_has(tmp_path):
    run = Run(tmp_path, federation(), {"ct": AddingTrainer(), "mr": AddingTrainer("MR")})
    run.hooks["round-closed", "CT", 1] = lambda event: setattr(run.nodes["ct"], "online", False)
    outcome = finish(run)
    assert (outcome.groups["CT"].rounds, outcome.groups["CT"].done) == (1, False)
    assert (outcome.groups["MR"].rounds, outcome.groups["MR"].done) == (3, True)
    ended = [event for event in run.kinds("group-finished") if event.group == "CT"]
    assert [event.code for event in ended] == ["group.no-sites"]


def test_a_group_in_which_everything_fails_ends_after_three_tries(tmp_path):
    always_wrong = AddingTrainer(wrong={2: "raise"})
    run = Run(tmp_path, federation(), {"ct": always_wrong})
    outcome = finish(run)
    assert outcome.groups["CT"].rounds == 1
    assert [event.code for event in run.kinds("group-finished")] == ["group.all-failed"]
    assert [event.round_number for event in run.kinds("round-failed")] == [2, 2, 2]
    assert [event.round_number for event in run.kinds("round-closed")] == [1]
    assert len([event for event in run.kinds("site-failed") if event.round_number == 2]) == 3
    # two pauses between three tries
    assert 20.0 <= run.clock() < 23.0


def test_nobody_at_all_is_an_error_after_the_join_deadline(tmp_path):
    with pytest.raises(CannotDoHereError) as error:
        Run(tmp_path, federation(), {}).loop().run()
    assert error.value.code == "federation.no-sites"
    assert [event["code"] for event in read_events(tmp_path / "events.jsonl")] == ["federation.no-sites"]


def test_a_second_node_with_a_sites_name_is_refused(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer(step=1.0), "b": AddingTrainer(step=50.0)})
    run.grid._context = _named_a(run.grid)
    outcome = finish(run)
    assert [event.code for event in run.kinds("site-refused")] == ["site.name-taken"]
    assert outcome.groups["CT"].model["b"][0] == 1.0


def _named_a(grid):
    original = grid._context

    def context(node_id):
        made = original(node_id)
        made.node_config["site"] = "a"
        return made

    return context


def test_the_name_given_at_admission_counts_whatever_a_node_says(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"says-a": AddingTrainer(), "says-b": AddingTrainer()})
    names = {2: "Clinic A", 3: "../b"}
    unnamed = run.grid.get_nodes

    def named():
        return [NodeInfo(node_id=node.node_id, name=names[node.node_id]) for node in unnamed()]

    run.grid.get_nodes = named
    outcome = finish(run)
    assert list(outcome.groups["CT"].members) == ["Clinic A"]
    assert [event.code for event in run.kinds("site-refused")] == ["site.name"]


def test_who_is_asked_can_be_chosen_per_round(tmp_path):
    run = Run(tmp_path, federation(), {"a": AddingTrainer(step=1.0), "b": AddingTrainer(step=3.0)})
    run.participation = lambda site, number: site == "a" and number != 2
    outcome = finish(run)
    assert [codes(outcome, "CT", number) for number in (1, 2, 3)] == [{"a": ""}, {}, {"a": ""}]
    assert outcome.groups["CT"].model["b"][0] == 2.0


def test_events_are_json_lines_in_the_runs_folder(tmp_path):
    run = Run(tmp_path, federation(rounds=1), {"ct": AddingTrainer()})
    finish(run)
    events = read_events(tmp_path / "events.jsonl")
    assert [event["event"] for event in events] == [
        "site-joined",
        "round-started",
        "site-answered",
        "round-closed",
        "group-finished",
        "finished",
    ]
    answered = events[2]
    assert {key: answered[key] for key in ("group", "round", "rounds", "site", "loss", "examples", "scores")} == {
        "group": "CT",
        "round": 1,
        "rounds": 1,
        "site": "ct",
        "loss": 1.0,
        "examples": 10,
        "scores": {"liver": 0.1},
    }
    # two float tensors and a counter: 6·4 + 4·4 + 8 bytes
    assert answered["bytes"] == 48
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"half')
    assert len(read_events(tmp_path / "events.jsonl")) == 6


class _CrashError(Exception):
    pass


def _crash(event):
    raise _CrashError


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        ("flames", ("round-started", "CT", 3)),
        ("flames", ("site-answered", "CT", 2)),
        ("fedavg", ("round-closed", "CT", 2)),
        ("flower", ("round-closed", "CT", 2)),
    ],
)
def test_a_restarted_server_goes_on_to_the_same_bits(tmp_path, rule, at):
    options = {"strategy": "FedAdam"} if rule == "flower" else {}
    config = federation(rounds=4, aggregation={"rule": rule, "options": options})

    def sites():
        return {"a": AddingTrainer(step=0.1), "b": AddingTrainer(step=0.7, examples=3), "m": AddingTrainer("MR", 0.3)}

    whole = finish(Run(tmp_path / "whole", config, sites()))
    broken = Run(tmp_path / "broken", config, sites())
    broken.hooks[at] = _crash
    with pytest.raises(_CrashError):
        broken.loop().run()
    resumed = finish(Run(tmp_path / "broken", config, sites()))
    for name, group in whole.groups.items():
        other = resumed.groups[name]
        assert other.rounds == 4
        for tensor in group.model:
            assert_array_equal(other.model[tensor], group.model[tensor])
            for site in group.site_models:
                assert_array_equal(other.model_of(site)[tensor], group.model_of(site)[tensor])
        assert other.history == group.history


def test_a_finished_run_can_be_given_more_rounds_but_no_other_configuration(tmp_path):
    finish(Run(tmp_path, federation(rounds=2), {"a": AddingTrainer()}))
    more = finish(Run(tmp_path, federation(rounds=3), {"a": AddingTrainer()}))
    assert more.groups["CT"].rounds == 3
    assert more.groups["CT"].model["b"][0] == 3.0
    with pytest.raises(BadInputError) as error:
        Run(tmp_path, federation(seed=1), {"a": AddingTrainer()}).loop().run()
    assert error.value.code == "federation.config-changed"


def test_cancelling_leaves_the_last_closed_round(tmp_path):
    run = Run(tmp_path, federation(rounds=5), {"a": AddingTrainer()})
    progress = Progress()
    run.hooks["round-closed", "CT", 2] = lambda event: progress.cancel()
    loop = run.loop()
    loop._progress = progress
    with pytest.raises(CancelledError):
        loop.run()
    assert FederationOutcome.load(tmp_path).groups["CT"].rounds == 2


def test_a_rule_that_does_not_fit_the_model_is_said_before_any_training(tmp_path):
    trainer = AddingTrainer()
    run = Run(tmp_path, federation(), {"a": trainer})
    loop = run.loop()
    loop._make_model = lambda network, seed: {"n.running_mean": np.zeros(1, np.float32)}
    with pytest.raises(BadInputError) as error:
        loop.run()
    assert error.value.code == "federation.batch-norm-policy"
    assert trainer.received == {}


def test_only_public_grid_methods_and_threads_work_too(tmp_path):
    class Narrow:
        """A grid with nothing but what the loop may use."""

        def __init__(self, grid):
            self.push_messages, self.pull_messages, self.get_nodes = (
                grid.push_messages,
                grid.pull_messages,
                grid.get_nodes,
            )

    with ThreadPoolExecutor(2) as executor:
        nodes = {name: LocalNode(make_client_app(AddingTrainer(step=2.0))) for name in "abc"}
        grid = LocalGrid(nodes, executor=executor)
        FederationLoop(Narrow(grid), federation(), tmp_path, make_model=make_model, poll_s=0.005).run()
    assert FederationOutcome.load(tmp_path).groups["CT"].model["b"][0] == 6.0


def test_state_holds_two_rounds_and_no_sites_raw_updates(tmp_path):
    finish(Run(tmp_path, federation(rounds=4, aggregation={"rule": "flames"}), {"a": AddingTrainer()}))
    group = tmp_path / "state" / "CT"
    kept = sorted(path.name for path in group.iterdir())
    assert kept == ["current.json", "history", "round-000003", "round-000004"]
    assert json.loads((group / "current.json").read_text())["folder"] == "round-000004"
