"""What one site sends can cost its own answer, never the run: rubbish, forged return addresses, odd introductions."""

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation_helpers import AddingTrainer, Run, federation
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects
from test_incoming import OddTrainer, changed, codes

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.bounded_pull import PulledTooMuchError, bounded_pull
from FedSegCore.federation.incoming import Incoming
from FedSegCore.federation.local_grid import LocalGrid
from FedSegCore.federation.messages import write_introduction, write_query
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.federation.steady_grid import SteadyGrid
from FedSegCore.learning.config import FedGsConfig, TrainingConfig
from FedSegCore.learning.results import CaseScore
from FedSegCore.models.release import open_release


def finish(run: Run) -> FederationOutcome:
    run.loop().run()
    return FederationOutcome.load(run.folder)


class TamperedGrid(LocalGrid):
    """A local grid on which the answers of the first node's training are changed on their way."""

    def pull_messages(self, message_ids):
        wanted = list(message_ids)
        mine = [self._pending[number].message for number in wanted if number in self._pending]
        replies = list(super().pull_messages(wanted))
        hit = [m for m in mine if m.metadata.dst_node_id == 2 and m.metadata.message_type == MessageType.TRAIN]
        return [self.tamper(reply) for reply in replies] if hit else replies


def tampered(tmp_path, tamper) -> FederationOutcome:
    run = Run(tmp_path, federation(rounds=2), {name: AddingTrainer(step=1.0) for name in "abc"})
    run.grid = TamperedGrid(run.nodes, run.clock)
    run.grid.tamper = tamper
    steady = SteadyGrid(run.grid)
    run.grid = steady
    return finish(run)


def parts_of(reply: Message) -> tuple[str, dict[str, bytes]]:
    return reply.object_id, {key: part.deflate() for key, part in get_all_nested_objects(reply).items()}


def with_rubbish_instead_of(kind: bytes):
    """Put a reply together from its parts, one of which is rubbish of the right length, as Flower's grid does."""

    def tamper(reply: Message) -> Message:
        root, parts = parts_of(reply)
        for key, content in parts.items():
            if content.startswith(kind):
                head, divider, body = content.partition(b"\0")
                parts[key] = head + divider + b"\xff" * len(body)
        return inflate_object_from_contents(root, parts)

    return tamper


@pytest.mark.parametrize("kind", [b"Message", b"RecordDict", b"ArrayRecord", b"Array ", b"ConfigRecord"])
def test_an_answer_that_cannot_be_put_together_costs_its_site_the_round_and_nobody_else(tmp_path, kind):
    outcome = tampered(tmp_path, with_rubbish_instead_of(kind))
    for number in (1, 2):
        assert codes(outcome, number) == {"a": "reply.unreadable", "b": "", "c": ""}


@pytest.mark.parametrize("record", [ArrayRecord(), ConfigRecord()])
def test_names_that_are_no_text_cost_their_site_the_round(tmp_path, record):
    """Flower reads names of records as JSON, in which half a character can stand alone; nobody can hash that."""

    def tamper(reply: Message) -> Message:
        reply.content["\ud800"] = record
        if isinstance(record, ConfigRecord):
            record["\ud800"] = 1
        else:
            record["\ud800"] = Array(np.zeros(1))
        return reply

    outcome = tampered(tmp_path, tamper)
    for number in (1, 2):
        found = codes(outcome, number)
        assert found.pop("a").startswith(("reply.", "tensors."))
        assert found == {"b": "", "c": ""}


def test_an_answer_that_says_it_answers_something_else_counts_for_its_own_site(tmp_path):
    def tamper(reply: Message) -> Message:
        reply.metadata.__dict__["_reply_to_message_id"] = "message-5"
        return reply

    outcome = tampered(tmp_path, tamper)
    assert [codes(outcome, number) for number in (1, 2)] == [dict.fromkeys("abc", "")] * 2


def test_an_answer_far_larger_than_the_model_is_not_read(tmp_path):
    def tamper(reply: Message) -> Message:
        root, parts = parts_of(reply)
        within = bounded_pull(pull_objects, lambda: 100)
        return inflate_object_from_contents(root, within(object_ids=list(parts), pull_object_fn=parts.__getitem__))

    outcome = tampered(tmp_path, tamper)
    assert [codes(outcome, number) for number in (1, 2)] == [{"a": "reply.too-large", "b": "", "c": ""}] * 2


def test_of_a_message_that_is_too_large_no_more_is_pulled():
    asked = []

    def give(number: str) -> bytes:
        asked.append(number)
        return bytes(10)

    names = [str(number) for number in range(100)]
    assert len(bounded_pull(pull_objects, lambda: 1000)(names, give)) == 100
    asked.clear()
    with pytest.raises(PulledTooMuchError) as refused:
        bounded_pull(pull_objects, lambda: 45)(names, pull_object_fn=give, max_concurrent_pulls=1)
    assert (refused.value.allowed, len(asked)) == (45, 5)


def test_what_an_answer_may_weigh_follows_from_what_was_sent(monkeypatch):
    import flwr.superlink.grid.http_grid as http_grid

    monkeypatch.setattr(http_grid, "pull_objects", pull_objects)
    steady = SteadyGrid(LocalGrid({}))
    steady.bound_answers()
    parts = {"small": bytes(16 * 1024**2), "more": bytes(1)}
    assert http_grid.pull_objects(object_ids=["small"], pull_object_fn=parts.__getitem__)
    with pytest.raises(PulledTooMuchError):
        http_grid.pull_objects(object_ids=["small", "more"], pull_object_fn=parts.__getitem__)


def test_a_site_of_a_modality_that_nobody_prepared_for_is_refused_and_the_others_train(tmp_path):
    for grouping in ("modality", "together"):
        folder = tmp_path / grouping
        run = Run(folder, federation(rounds=1, grouping=grouping), {"odd": AddingTrainer("PT"), "ct": AddingTrainer()})
        (group,) = finish(run).groups.values()
        assert (list(group.members), group.done) == (["ct"], True)
        assert [(event.site, event.code) for event in run.kinds("site-refused")] == [("odd", "site.modality")]


def test_a_score_for_a_label_of_its_own_is_refused_and_what_was_trained_can_be_published(tmp_path):
    def odd(former, result):
        return changed(result, scores=(CaseScore("c", "not in the contract", 0.5, 0.4),))

    run = Run(tmp_path / "run", federation(rounds=2), {"a": OddTrainer(odd=odd), "b": AddingTrainer()})
    outcome = finish(run)
    assert codes(outcome, 2) == {"a": "reply.scores", "b": ""}
    published = publish_outcome(outcome, tmp_path / "releases", Ed25519PrivateKey.generate())
    assert {score.label for score in open_release(published["CT"]).card.scores} == {"liver"}


@pytest.mark.parametrize("software", [{f"p{n}": "1" for n in range(33)}, {"p" * 65: "1"}, {"p": "1" * 65}])
def test_an_introduction_is_short(software):
    from FedSegCore.federation.messages import SiteIntroduction, read_introduction

    made = SiteIntroduction.model_construct(
        protocol=4, site="a", modality="CT", training_cases=1, validation_cases=1, software=software,
        fingerprint="0" * 64,
    )  # fmt: skip
    with pytest.raises(FedSegError, match=r"reply\.invalid"):
        read_introduction(write_introduction(made))


def test_an_answer_to_a_query_may_be_rubbish_too(tmp_path):
    LocalGrid({})
    asked = Message(write_query(), 2, MessageType.QUERY)
    reply = Message(RecordDict(), reply_to=asked)
    root, parts = parts_of(reply)
    parts[root] = parts[root][:-4] + b"\xff\xff\xff\xff"

    class Rubbish:
        def pull_messages(self, message_ids):
            return [inflate_object_from_contents(root, dict(parts))]

    (answered,) = SteadyGrid(Rubbish()).pull_messages(["message-1"])
    assert (answered.error.code, answered.metadata.reply_to_message_id) == (1001, "message-1")


class WeighingTrainer(AddingTrainer):
    """Adds, and tells FedGS's update of the tensors that it is made with; without any, of all that are trained."""

    def __init__(self, *told: str, **more) -> None:
        super().__init__(**more)
        self.told = told

    def train_round(self, task, weights, request):
        result = super().train_round(task, weights, request)
        floats = [name for name, array in weights.items() if array.dtype.kind == "f"]
        extras = {f"fedgs/{name}": np.full_like(weights[name], -self.step) for name in self.told or floats}
        return changed(result, extras=extras)


def test_whoever_covers_fewer_tensors_than_fedgs_needs_is_left_out_and_nobody_else(tmp_path):
    training = TrainingConfig(fedgs=FedGsConfig(log_base=100.0, threshold=150.0))
    config = federation(rounds=2, aggregation={"rule": "fedgs"}, training=training)
    sites = {"a": WeighingTrainer("b"), **{name: WeighingTrainer() for name in "bcd"}}
    outcome = finish(Run(tmp_path, config, sites))
    for number in (1, 2):
        assert codes(outcome, number) == {"a": "reply.refused-by-rule", "b": "", "c": "", "d": ""}
    assert [float(outcome.groups["CT"].model[name].flat[0]) for name in "ab"] == [2.0, 2.0]


def _hollow(weights, count):
    """Extra tensors that weigh a bit a value on the way and 32 once they are put together."""
    parts = {":scales": np.ones(count, np.float32)}
    for number in range(count):
        parts[f"r{number}/a:mask"] = np.zeros(math.ceil(weights["a"].size / 8), np.uint8)
        parts[f"r{number}/a:codes"] = np.zeros(0, np.int8)
    return parts


@pytest.mark.parametrize("fedgs", [None, {"log_base": 100.0, "threshold": 150.0}])
@pytest.mark.parametrize(
    "made",
    [
        lambda result: {"extras": {"other/b": result.weights["b"]}},
        lambda result: {"extras": {"fedgs/steps": result.weights["steps"]}},
        lambda result: {"weights": {}, "unchanged": tuple(result.weights), "encoded": True,
                        "extras": _hollow(result.weights, 150)},
    ],
)  # fmt: skip
def test_extra_tensors_that_nobody_asked_for_reach_no_disk(tmp_path, monkeypatch, made, fedgs):
    def odd(former, result):
        return changed(result, **made(result))

    kept = []
    take = Incoming.take
    monkeypatch.setattr(Incoming, "take", lambda self, one, length: kept.append(one) or take(self, one, length))
    training = {} if fedgs is None else {"fedgs": fedgs}
    run = Run(tmp_path, federation(rounds=2, training=training), {"a": OddTrainer(odd=odd), "b": AddingTrainer()})
    outcome = finish(run)
    assert codes(outcome, 2) == {"a": "reply.extras", "b": ""}
    assert {name for one in kept for name in one.extras} == set()


def test_fedgs_updates_that_nobody_asked_for_are_refused_too(tmp_path):
    outcome = finish(Run(tmp_path, federation(rounds=1), {"a": WeighingTrainer(), "b": AddingTrainer()}))
    assert codes(outcome, 1) == {"a": "reply.extras", "b": ""}


class BoastingTrainer(AddingTrainer):
    """Says in its answers that it has ten million images and trained on each, not when it introduces itself."""

    def train_round(self, task, weights, request):
        return changed(super().train_round(task, weights, request), num_examples=10_000_000, num_steps=5_000_000)


def boasting(folder, step, **changes) -> tuple[FederationOutcome, Run]:
    """Run one round of four sites that change all by 0.01 and one that boasts, of ten images each."""
    sites = {**{name: AddingTrainer(step=0.01) for name in "abcd"}, "h": BoastingTrainer(step=step)}
    run = Run(folder, federation(rounds=1, **changes), sites)
    return finish(run), run


def test_steps_that_a_site_says_it_did_make_no_room_for_an_extreme_update(tmp_path):
    outcome, _ = boasting(tmp_path, 20.0)
    assert codes(outcome, 1) == {**dict.fromkeys("abcd", ""), "h": "reply.extreme"}
    assert float(outcome.groups["CT"].model["b"][0]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("dimensions", "examples", "steps", "share"), [(3, 10, 5, 0.2), (2, 10_000, 5_000, round(10_000 / 10_040, 3))]
)
def test_a_site_weighs_no_more_than_the_cases_it_came_with_can_give(tmp_path, dimensions, examples, steps, share):
    networks = {"default": {"dimensions": dimensions}}
    training = {"patch_size": (1 if dimensions == 2 else 8, 8, 8)}
    outcome, run = boasting(tmp_path, 0.02, networks=networks, training=training)
    (row,) = [row for row in outcome.groups["CT"].history if row.site == "h"]
    assert (row.code, row.examples, row.steps) == ("", examples, steps)
    mean = (examples * 0.02 + 40 * 0.01) / (examples + 40)
    assert float(outcome.groups["CT"].model["b"][0]) == pytest.approx(mean, rel=1e-5)
    assert [event.data["largest_share"] for event in run.kinds("round-closed")] == [share]


class LosingTrainer(AddingTrainer):
    """Tells a training loss of its own."""

    def __init__(self, loss: float, **more) -> None:
        super().__init__(**more)
        self.loss = loss

    def train_round(self, task, weights, request):
        return changed(super().train_round(task, weights, request), loss=self.loss)


def test_losses_beyond_all_measure_cost_their_sites_the_round_and_do_not_end_the_run(tmp_path):
    sites = {"a": AddingTrainer(), "b": LosingTrainer(1.7e308), "c": LosingTrainer(1.7e308)}
    run = Run(tmp_path, federation(rounds=2), sites)
    outcome = finish(run)
    for number in (1, 2):
        assert codes(outcome, number) == {"a": "", "b": "reply.loss", "c": "reply.loss"}
    assert [event.data["loss"] for event in run.kinds("round-closed")] == [1.0, 0.5]


def test_a_rule_that_makes_what_is_no_number_has_made_nothing(tmp_path):
    """QFedAvg's losses to a power: (1e6)^99 is beyond all numbers."""
    arguments = {"q": 99.0, "client_learning_rate": 0.1}
    config = federation(
        rounds=2, aggregation={"rule": "flower", "options": {"strategy": "QFedAvg", "arguments": arguments}}
    )
    hostile = LosingTrainer(1.0)
    run = Run(tmp_path, config, {"a": AddingTrainer(), "b": AddingTrainer(), "c": hostile})
    run.hooks["round-closed", "CT", 1] = lambda event: setattr(hostile, "loss", 1e6)
    group = finish(run).groups["CT"]
    assert (group.rounds, len(run.kinds("round-failed"))) == (1, 3)
    assert all(np.isfinite(array).all() for array in group.model.values())
