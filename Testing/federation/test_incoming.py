"""What the server leaves out of a round, by name, and that the round goes on with the rest."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from federation_helpers import AddingTrainer, Run, federation
from flwr.app import Message
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.federation.aggregation.fedavg import FedAvg
from FedSegCore.federation.aggregation.fedgs import FedGs
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.array_files import FolderSiteStore
from FedSegCore.federation.checks import check_counts, check_length, update_length
from FedSegCore.federation.client_app import answer
from FedSegCore.federation.incoming import EXTREME, HELD, REFUSED_BY_RULE, Incoming
from FedSegCore.federation.messages import RoundReport
from FedSegCore.federation.open_round import enough_cases
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.results import CaseScore, RoundResult

MODEL = {"w": np.zeros(4, np.float32)}


def codes(outcome, number):
    return {row.site: row.code for row in outcome.groups["CT"].history if row.round_number == number}


def finish(run) -> FederationOutcome:
    run.loop().run()
    return FederationOutcome.load(run.folder)


@dataclass
class Round:
    """A round whose model has four zeros, so that an update of four times v is 2v long."""

    folder: object
    factor: float | None = 10.0
    rule: object = field(default_factory=FedAvg)

    def __post_init__(self):
        self.rule.begin(MODEL, {}, {})
        self.incoming = Incoming(self.rule, self.folder, self.factor)
        self.found = {}

    def take(self, site, value, steps=5):
        weights = {"w": np.full(4, value, np.float32)}
        update = SiteUpdate(site, weights, 1, steps)
        self.found |= self.incoming.take(update, update_length(weights, {}, MODEL))

    def settle(self):
        self.found |= self.incoming.settle()
        return self.found

    def mean(self):
        return float(self.rule.finish().group_model["w"][0])


@pytest.mark.parametrize(
    ("values", "extreme"),
    [
        # lengths 2, 2.4 and 25, the median 2.4: 25 is more than ten times as long
        ({"a": 1.0, "b": 1.2, "c": 12.5}, {"c"}),
        ({"a": 1.0, "b": 1.2, "c": 11.9}, set()),
        ({"a": 1.0, "b": 1.1, "c": 0.9, "d": 1e4, "e": 5e4}, {"d", "e"}),
        # who sends next to nothing cannot make the others look extreme
        ({"a": 1.0, "b": 1.0, "c": 1e-9}, set()),
        ({"a": 1.0, "b": 1.1, "c": 1.2, "d": 1e-9, "e": 1e-9}, set()),
        # one of two: nobody can tell which; and sites without a change do not count
        ({"a": 1.0, "b": 1000.0}, set()),
        ({"a": 1.0, "b": 1000.0, "c": 0.0, "d": 0.0}, set()),
    ],
)
def test_the_median_of_all_tells_what_is_extreme(tmp_path, values, extreme):
    this = Round(tmp_path)
    for site, value in values.items():
        this.take(site, value)
    assert this.settle() == dict.fromkeys(extreme, EXTREME)
    rest = [value for site, value in values.items() if site not in extreme]
    assert this.mean() == pytest.approx(sum(rest) / len(rest), rel=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_did_more_steps_may_be_longer_in_proportion(tmp_path):
    this = Round(tmp_path)
    for site, value, steps in (("a", 1.0, 5), ("b", 1.2, 5), ("c", 23.0, 10)):
        this.take(site, value, steps)
    # 46 is less than 10 · 2.4 · (10 / 5)
    assert this.settle() == {}


def test_steps_that_a_site_only_says_it_did_do_not_excuse_every_length(tmp_path):
    this = Round(tmp_path)
    # a hundred times the median's steps count as ten times: 10 · 2.4 · 10 is most
    for site, value, steps in (("a", 1.0, 5), ("b", 1.2, 5), ("c", 1.2, 5), ("d", 119.0, 500), ("e", 121.0, 500)):
        this.take(site, value, steps)
    assert this.settle() == {"e": EXTREME}


def test_nothing_is_compared_where_the_federation_says_so(tmp_path):
    this = Round(tmp_path, factor=None)
    for site, value in (("a", 1.0), ("b", 1.0), ("c", 1e6)):
        this.take(site, value)
    assert this.settle() == {}


def test_of_many_sites_the_later_ones_are_compared_as_they_come(tmp_path):
    this = Round(tmp_path)
    for number in range(HELD):
        this.take(f"s{number}", 1000.0 if number == 3 else 1.0)
        waiting = len(list(tmp_path.iterdir()))
        assert waiting == (number + 1 if number < HELD - 1 else 0)
    assert this.found == {"s3": EXTREME}
    this.take("late", 500.0)
    this.take("fine", 1.0)
    assert this.settle() == {"s3": EXTREME, "late": EXTREME}
    assert this.mean() == 1.0


def test_the_order_of_arrival_does_not_change_a_bit(tmp_path):
    values = {"a": 0.1, "b": 1e-9, "c": 0.3, "d": 0.7}
    made = set()
    for order in itertools.permutations(values):
        this = Round(tmp_path)
        for site in order:
            this.take(site, values[site])
        this.settle()
        made.add(this.rule.finish().group_model["w"].tobytes())
    assert len(made) == 1


def test_what_the_rule_cannot_use_is_named(tmp_path):
    this = Round(tmp_path, rule=FedGs())
    this.take("a", 1.0)
    assert this.settle() == {"a": REFUSED_BY_RULE}


def test_lengths_by_hand():
    received = {"w": np.array([1.0, 2.0], np.float32), "n": np.array([5], np.int64)}
    weights = {"w": np.array([4.0, 6.0], np.float32), "n": np.array([9], np.int64)}
    # (3, 4) is 5 long, with (0, 12) beside it 13; counters do not count
    assert update_length(weights, {}, received) == 5.0
    assert update_length(weights, {"fedgs/w": np.array([0.0, 12.0], np.float32)}, received) == 13.0
    # a model of (3, 4) is 5 long: 500 is most; a model of zeros counts as 1
    check_length(500.0, {"w": np.array([3.0, 4.0])})
    check_length(100.0, MODEL)
    for length, model in ((500.1, {"w": np.array([3.0, 4.0])}), (100.1, MODEL), (float("inf"), MODEL)):
        with pytest.raises(BadInputError, match=r"reply\.norm"):
            check_length(length, model)


@pytest.mark.parametrize(
    ("examples", "steps", "training", "possible"),
    [
        (10, 5, {"steps_per_round": 5}, True),
        (10, 6, {"steps_per_round": 5}, False),
        (10, 15, {"epochs": 3}, True),
        (10, 16, {"epochs": 3}, False),
        (9, 9, {"epochs": 3, "batch_size": 4}, True),
        (9, 10, {"epochs": 3, "batch_size": 4}, False),
        (1, 1, {"batch_size": 256}, True),
        (0, 0, {}, True),
        (0, 1, {"steps_per_round": 5}, False),
        (1, 0, {}, False),
        (10_000_001, 5, {"steps_per_round": 5}, False),
    ],
)
def test_counts_that_are_impossible(examples, steps, training, possible):
    report = RoundReport(round_number=1, num_examples=examples, num_steps=steps, loss=None)
    if possible:
        check_counts(report, TrainingConfig(**training))
    else:
        with pytest.raises(BadInputError, match=r"reply\.counts"):
            check_counts(report, TrainingConfig(**training))


def test_labels_scored_on_too_few_cases_are_hidden():
    liver = [CaseScore(f"c{number}", "liver", 0.5, 0.4) for number in range(3)]
    # a case that comes twice is one case
    spleen = [CaseScore(case, "spleen", 0.5, 0.4) for case in ("c0", "c1", "c0")]
    assert enough_cases((*liver, *spleen), 3) == tuple(liver)
    assert enough_cases((*liver, *spleen), 4) == ()
    assert enough_cases((*liver, *spleen), 1) == (*liver, *spleen)


@dataclass
class OddTrainer(AddingTrainer):
    """Gives in round 2 what ``odd`` makes of its result."""

    odd: object = None
    former: RoundResult | None = None

    def train_round(self, task, weights, request):
        result = super().train_round(task, weights, request)
        told = self.odd(self.former, result) if request.round_number == 2 else result
        self.former = result
        return told


def filled(value):
    return np.full(4, value, np.float32)


def changed(result, **changes):
    return RoundResult(**{**{name: getattr(result, name) for name in result.__dataclass_fields__}, **changes})


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        (lambda former, result: changed(result, weights=former.weights), "reply.replayed"),
        (lambda former, result: changed(result, num_steps=10**6), "reply.counts"),
        (lambda former, result: changed(result, num_examples=0), "reply.counts"),
        (lambda former, result: changed(result, weights={**result.weights, "x": np.zeros(1)}), "reply.names"),
        (lambda former, result: changed(result, weights={**result.weights, "b": np.zeros(4)}), "reply.dtype"),
        (lambda former, result: changed(result, weights={**result.weights, "b": filled(1e3)}), "reply.norm"),
        (lambda former, result: changed(result, weights={**result.weights, "b": filled(40.0)}), "reply.extreme"),
        (lambda former, result: changed(result, scores=(CaseScore("c", "liver", 1.1, 0.1),)), "reply.scores"),
    ],
)
def test_an_odd_answer_is_refused_by_name_and_the_round_goes_on(tmp_path, odd, code):
    sites = {name: AddingTrainer(step=1.0) for name in "bcd"}
    outcome = finish(Run(tmp_path, federation(), {"a": OddTrainer(step=2.0, odd=odd), **sites}))
    assert codes(outcome, 2) == {"a": code, "b": "", "c": "", "d": ""}
    assert codes(outcome, 3) == dict.fromkeys("abcd", "")
    # a mean step of (2 + 1 + 1 + 1)/4, of 1 without the first site, and of 1.25 again
    assert_array_equal(outcome.groups["CT"].model["b"], np.full(4, 3.5, np.float32))


def test_an_answer_to_an_old_round_is_refused_by_name(tmp_path):
    run = Run(tmp_path, federation(), {"a": AddingTrainer(), "b": AddingTrainer()})
    former = []

    def app(message, context):
        reply = answer(message, context, run.trainers["a"])
        if message.metadata.message_type.startswith("train"):
            former.append(reply.content)
            if len(former) == 2:
                return Message(former[0], reply_to=message)
        return reply

    run.nodes["a"].app = app
    outcome = finish(run)
    assert codes(outcome, 2) == {"a": "reply.round", "b": ""}
    assert codes(outcome, 3) == {"a": "", "b": ""}


def test_metrics_of_too_few_cases_reach_neither_history_nor_events(tmp_path):
    run = Run(tmp_path, federation(privacy={"minimum_cases": 2}), {"a": AddingTrainer(), "b": AddingTrainer()})
    outcome = finish(run)
    assert [row.scores for row in outcome.groups["CT"].history] == [()] * 6
    assert all(event.data["scores"] == {} for event in run.kinds("site-answered") + run.kinds("round-closed"))


def test_where_no_folder_can_be_made_the_disk_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotDoHereError, match=r"federation\.disk"):
        FolderSiteStore(tmp_path / "file" / "updates")
    with pytest.raises(CannotDoHereError, match=r"federation\.disk"):
        Round(tmp_path / "file" / "waiting").take("a", 1.0)


def test_a_folder_that_cannot_be_deleted_yet_is_used_as_it_is(tmp_path, monkeypatch):
    """As on Windows, where what a virus scanner is reading stays."""
    store = FolderSiteStore(tmp_path / "updates")
    store["a"] = MODEL
    monkeypatch.setattr("FedSegCore.federation.array_files.shutil.rmtree", lambda *_, **__: None)
    again = FolderSiteStore(tmp_path / "updates")
    assert list(again) == []
    again["b"] = {"w": np.ones(4, np.float32)}
    assert_array_equal(again["b"]["w"], np.ones(4))
