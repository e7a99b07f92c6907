"""Sites' own models (FLAMES, local BatchNorm) over rounds in which sites are away, late, gone or expelled."""

from dataclasses import replace

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.aggregation.batch_norm import without_sites
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.config import AggregationConfig
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.server_app import admitted_sites
from FedSegCore.volumes.usual import CohortUsual, Usual

FLAMES = AggregationConfig(rule="flames", options={"alpha": 0.75, "absent": "keep"})
MIXED = AggregationConfig(rule="flames", options={"alpha": 0.75, "absent": "mix"})


def value(model) -> float:
    return float(model["b"][0])


def finished(folder, trainers, asked=lambda site, number: True, rounds=3, aggregation=FLAMES):
    run = Run(folder, federation(rounds=rounds, aggregation=aggregation), trainers)
    run.participation = asked
    run.loop().run()
    return FederationOutcome.load(folder).groups["CT"]


def pair():
    # after round 1 a has 0.75·4 + 0.25·8 = 5 and b 0.75·8 + 0.25·4 = 7, W = 6
    return {"a": AddingTrainer(step=4.0), "b": AddingTrainer(step=8.0)}


def test_a_round_in_which_nobody_is_asked_changes_nothing(tmp_path):
    sites = pair()
    group = finished(tmp_path, sites, lambda site, number: number != 2)
    assert group.rounds == 3
    assert (value(sites["a"].received[3]), value(sites["b"].received[3])) == (5.0, 7.0)


def test_a_site_that_missed_a_round_goes_on_from_its_own_model(tmp_path):
    sites = {**pair(), "c": AddingTrainer(step=2.0)}
    group = finished(tmp_path, sites, lambda site, number: site != "c" or number != 2)
    # equal sizes: c's mix after round 1 is 0.75·2 + 0.25·(4 + 8)/2
    assert value(sites["c"].received[3]) == 3.0
    assert set(group.site_models) == {"a", "b", "c"}


def flames(**options):
    """Return the rule at the begin of a round of a model with a number, a counter and a layer of BatchNorm."""
    rule = build_rule(AggregationConfig(rule="flames", options={"batch_norm": "local", **options}))
    rule.begin(_counting_model(0.0), {"batch-norm/away/n.weight": np.full(2, 7.0, np.float32),
                                      "batch-norm/away/n.running_mean": np.full(2, 8.0, np.float32)}, {})  # fmt: skip
    return rule


def test_the_mix_of_a_site_that_is_away_by_hand():
    rule = flames()
    for site, number, examples in (("a", 3.0, 1), ("b", 6.0, 2), ("idle", 99.0, 0)):
        rule.fold(SiteUpdate(site, _counting_model(number), examples))
    mixed = rule.finish().absent_model("away", _counting_model(9.0, counter=4))
    # with the one that is away N = 3; a and b weigh 1 and 1/2, and 4 is their mean
    assert value(mixed) == pytest.approx((0.1 + 1 / 3) * 9.0 + (0.9 - 1 / 3) * 4.0)
    assert mixed["counter"] == 4
    assert (mixed["n.weight"][0], mixed["n.running_mean"][0]) == (7.0, 8.0)  # as it left them


def test_nothing_is_mixed_where_nobody_trained_or_nobody_asked_for_it():
    kept = _counting_model(9.0)
    for options, sent in (({}, []), ({}, [("a", 0)]), ({"absent": "keep"}, [("a", 1), ("b", 1)])):
        rule = flames(**options)
        for site, examples in sent:
            rule.fold(SiteUpdate(site, _counting_model(3.0), examples))
        assert rule.finish().absent_model("away", kept) is kept


def test_a_site_that_is_away_goes_on_being_mixed(tmp_path):
    group = finished(tmp_path, pair(), lambda site, number: site == "a" or number == 1, aggregation=MIXED)
    assert value(group.model_of("a")) == 13.0  # 5, alone: + 4, + 4
    after_round_2 = 0.75 * 7.0 + 0.25 * 9.0
    assert value(group.model_of("b")) == 0.75 * after_round_2 + 0.25 * 13.0
    assert value(group.model_of("newcomer")) == 6.0


def test_a_model_of_one_site_alone_goes_to_that_site_only(tmp_path):
    sites = pair()
    group = finished(tmp_path, sites, lambda site, number: site == "a" or number == 1)
    # a trained alone in rounds 2 and 3: 5 + 4 + 4
    assert value(group.model) == value(group.model_of("a")) == 13.0
    # b keeps its mix of round 1, and a newcomer is sent the last model that two sites made
    assert value(group.model_of("b")) == 7.0
    assert value(group.model_of("newcomer")) == 6.0


def test_who_joins_a_site_that_was_alone_from_the_beginning_starts_as_it_did(tmp_path):
    late = AddingTrainer(step=1.0)
    sites = {"a": AddingTrainer(step=4.0), "late": late}
    group = finished(tmp_path, sites, lambda site, number: site == "a" or number == 3)
    assert value(late.received[3]) == 0.0
    # a sends 12, late 1; now that two have made it, the group's model goes to newcomers again
    assert value(group.model) == value(group.model_of("newcomer")) == 6.5
    assert value(group.model_of("late")) == 0.75 * 1.0 + 0.25 * 12.0


class _CrashError(Exception):
    pass


@pytest.mark.parametrize("broken_after", [1, 2, 3])
@pytest.mark.parametrize(("norms", "absent"), [("share", "keep"), ("local", "keep"), ("local", "mix")])
def test_absences_come_to_the_same_bits_with_and_without_a_restart(tmp_path, broken_after, norms, absent):
    def asked(site, number):
        return (site, number) not in {("b", 2), ("a", 3), ("b", 3), ("a", 4)} and number != 5

    options = {"batch_norm": norms, "absent": absent}
    config = federation(rounds=6, aggregation={"rule": "flames", "options": options})
    whole = run_in_process(config, pair(), tmp_path / "whole", participation=asked, make_model=_norm_model)

    def crash(event):
        if event.event == "round-closed" and event.round_number == broken_after:
            raise _CrashError

    folder = tmp_path / "broken"
    with pytest.raises(_CrashError):
        run_in_process(config, pair(), folder, participation=asked, make_model=_norm_model, on_event=crash)
    resumed = run_in_process(config, pair(), folder, participation=asked, make_model=_norm_model)
    one, other = whole.groups["CT"], resumed.groups["CT"]
    for site in ("a", "b", "newcomer"):
        for name in one.model:
            assert_array_equal(one.model_of(site)[name], other.model_of(site)[name])
    assert value(one.model_of("a")) != value(one.model_of("b"))


def _norm_model(network, seed):
    return {"b": np.zeros(4, np.float32), "n.weight": np.ones(2, np.float32), "n.running_mean": np.zeros(2, np.float32)}


def _counting_model(number, counter=0):
    norms = {"n.weight": np.ones(2, np.float32), "n.running_mean": np.zeros(2, np.float32)}
    return {"b": np.full(4, number, np.float32), "counter": np.asarray(counter, np.int64), **norms}


class _Leaving(AddingTrainer):
    """Is taken out of the federation in round 2 and comes back in round 4."""

    def train_round(self, task, weights, request):
        result = super().train_round(task, weights, request)
        if request.round_number == 2:
            raise FedSegError("site.left", "The site has left.", "")
        return result


def test_who_has_left_is_forgotten(tmp_path):
    sites = {**pair(), "c": _Leaving(step=2.0)}
    finished(tmp_path, sites, lambda site, number: site != "c" or number != 3, rounds=4)
    # W of a and b after round 3, not c's mix of round 1
    assert value(sites["c"].received[2]) == 3.0
    assert value(sites["c"].received[4]) == (value(sites["a"].received[3]) + 4 + value(sites["b"].received[3]) + 8) / 2


def test_the_layers_of_who_has_left_are_forgotten_too_and_it_comes_back_to_the_groups_model(tmp_path):
    sites = {**pair(), "c": _Leaving(step=2.0)}
    config = federation(rounds=4, aggregation={"rule": "fedavg", "options": {"batch_norm": "local"}})
    kept = []

    def asked(site, number):
        if site == "a":
            kept.append(sorted(path.name for path in tmp_path.glob("state/CT/round-000002/site-*")))
        return site != "c" or number != 3

    group = run_in_process(config, sites, tmp_path, participation=asked, make_model=_norm_model).groups["CT"]
    # a and b have models of their own after round 2; c, which left in it, has none
    assert len(kept[2]) == 2
    received = sites["c"].received[4]
    mean = (value(sites["a"].received[3]) + 4.0 + value(sites["b"].received[3]) + 8.0) / 2
    assert value(received) == mean
    # the mean of a's own layers, three times 4, and b's, three times 8
    assert received["n.running_mean"][0] == 18.0
    assert set(group.site_models) == {"a", "b", "c"}


class _Telling(AddingTrainer):
    """Tells what is usual where it is asked for it, and remembers in which rounds it was."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def train_round(self, task, weights, request):
        if request.usual:
            self.asked.append(request.round_number)
        usual = CohortUsual(volumes={1: Usual(patients=3, mean=(1.0,), deviation=(0.1,))}) if request.usual else None
        return replace(super().train_round(task, weights, request), usual=usual)


@pytest.mark.parametrize(("known", "asked", "answered"), [(True, [1, 2], 2), (False, [1], 3)])
def test_whoever_has_the_name_of_one_that_was_expelled_starts_anew(tmp_path, known, asked, answered):
    """Where nobody keeps a list of who is admitted, a site may be another node after every start and is the same."""
    run = Run(tmp_path, federation(rounds=3), {"a": AddingTrainer(), "b": _Telling()})

    def with_another_key(event):
        run.grid._ids["b"], run.grid._names[99] = 99, "b"

    run.hooks["round-closed", "CT", 1] = with_another_key
    loop = run.loop()
    loop._admitted = lambda: {("a", 2), ("b", run.grid._ids.get("b"))} if known else None
    loop.run()
    member = FederationOutcome.load(tmp_path).groups["CT"].members["b"]
    assert run.trainers["b"].asked == asked
    assert (member.rounds_answered, member.node_id, member.usual is not None) == (answered, 99, True)


@pytest.mark.parametrize("again", [frozenset(), frozenset({("b", 99)})])
def test_who_was_expelled_is_forgotten_also_where_another_key_has_its_name(tmp_path, again):
    sites = {**pair(), "c": AddingTrainer(step=2.0)}
    nodes = {("a", 2), ("b", 3), ("c", 4)}
    run = Run(tmp_path, federation(rounds=3, aggregation=FLAMES), sites)
    run.participation = lambda site, number: site != "b" or number == 1
    loop = run.loop()
    loop._admitted = lambda: nodes if len(run.kinds("round-closed")) < 2 else nodes - {("b", 3)} | again
    loop.run()
    group = FederationOutcome.load(tmp_path).groups["CT"]
    assert set(group.site_models) == {"a", "c"}
    assert group.members["b"].rounds_answered == 1


def test_the_layers_that_a_rule_keeps_for_a_site_are_forgotten_with_it():
    kept = {"batch-norm/b/n.weight": np.ones(1), "batch-norm/bb/n.weight": np.ones(1), "momentum/b/x": np.ones(1)}
    assert set(without_sites(kept, {"b"})) == {"batch-norm/bb/n.weight", "momentum/b/x"}
    assert set(without_sites(kept, ())) == set(kept)


def test_the_server_app_knows_who_is_admitted(tmp_path):
    assert admitted_sites(tmp_path) is None
    folder = CoordinatorFolder.create(
        tmp_path / "coordinator",
        CoordinatorSettings(federation="test", hosts=("127.0.0.1",)),
    )
    assert admitted_sites(folder.path) == frozenset()
    folder.keep_sites((AdmittedSite(name="a", node_id=2**63 + 1, fingerprint="f"),))
    assert admitted_sites(folder.path) == {("a", 2**63 + 1)}
    (folder.path / "sites.json").write_text("{")
    assert admitted_sites(folder.path) is None
