"""Real networks trained by real trainers through the real server loop and client apps, in one process."""

import math
from dataclasses import replace

import numpy as np
import pytest
from federation_helpers import AddingTrainer, federation, make_model
from flwr.app import Context, RecordDict
from numpy.testing import assert_array_equal

from FedSegCore.common.errors import BadInputError, CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.events import read_events
from FedSegCore.federation.federated_run import InProcessTrainer, run_in_process
from FedSegCore.federation.initial_model import initial_model, write_initial_models
from FedSegCore.federation.local_grid import LocalGrid, LocalNode
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.federation.server_app import app
from FedSegCore.federation.tasks import training_task
from FedSegCore.learning.cohort import Cohort, PreparedCase
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.models.release import open_release
from FedSegCore.models.signing import load_or_make_key, public_key_of
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.volume import Grid

SHAPE = (6, 32, 32)


def case(seed: int) -> PreparedCase:
    """A bright box in noise."""
    generator = np.random.default_rng(seed)
    image = generator.normal(0.3, 0.05, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    start = generator.integers(4, 16, size=2)
    box = (slice(1, 5), slice(start[0], start[0] + 12), slice(start[1], start[1] + 12))
    image[box], labels[box] = 0.9, 1
    return PreparedCase(
        f"case-{seed}", f"patient-{seed}", image[None].astype(np.float16), labels, Grid(SHAPE, (1.0, 1.0, 2.0)), (1,)
    )


def cohort(first: int) -> Cohort:
    return Cohort((case(first), case(first + 1)), (case(first + 2),))


def small(**changes):
    entries = {
        "rounds": 4,
        "aggregation": {"rule": "flames"},
        "networks": {"default": NetworkConfig(dimensions=2, options={"channels": [8, 16]})},
        "training": {
            "patch_size": (1, 32, 32),
            "batch_size": 4,
            "steps_per_round": 8,
            "learning_rate": 1e-2,
            "final_learning_rate": 1e-3,
        },
        "augmentation": {"spatial": None, "gin": None},
    }
    return federation(**{**entries, **changes})


def sites():
    return {"ct-1": ("CT", cohort(0)), "ct-2": ("CT", cohort(10)), "mr-1": ("MR", cohort(20))}


def same(one: FederationOutcome, other: FederationOutcome) -> None:
    assert one.groups.keys() == other.groups.keys()
    for name, group in one.groups.items():
        for tensor, array in group.model.items():
            assert_array_equal(other.groups[name].model[tensor], array)
        # an answer holds its times, so its length and hash differ with them
        times = {"seconds": {}, "answer_seconds": 0.0, "payload_bytes": 0, "payload_sha256": ""}
        assert [row.model_copy(update=times) for row in group.history] == [
            row.model_copy(update=times) for row in other.groups[name].history
        ]


def test_sites_learn_a_model_per_modality_and_it_is_published(tmp_path):
    progress = []
    outcome = run_in_process(small(), sites(), tmp_path / "run", Progress(lambda f, stage: progress.append((f, stage))))
    assert set(outcome.groups) == {"CT", "MR"}
    for group in outcome.groups.values():
        dice = {row["round"]: [] for row in group.score_rows()}
        for row in group.score_rows():
            dice[row["round"]].append(row["dice"])
        assert np.mean(dice[4]) > 0.8 > np.mean(dice[1])
    assert progress[-1][0] == 1.0
    assert [f for f, _ in progress] == sorted(f for f, _ in progress)

    key = load_or_make_key(tmp_path / "key")
    paths = publish_outcome(outcome, tmp_path / "releases", key)
    release = open_release(paths["CT"], trusted={public_key_of(key)})
    card = release.card
    assert (card.name, card.version, card.rule, card.rounds) == ("test-CT", 1, "flames", 4)
    assert [(site.site, site.training_cases, site.rounds_answered) for site in card.sites] == [
        ("ct-1", 2, 4),
        ("ct-2", 2, 4),
    ]
    assert list(card.modalities) == ["CT"]
    # the sites' cases annotate value 1 only, whatever else the contract has
    assert [label.value for label in card.given_labels] == [1]
    liver = next(score for score in card.scores if score.metric == "dice")
    last = [row["dice"] for row in outcome.groups["CT"].score_rows() if row["round"] == 4]
    assert (liver.label, liver.cases) == ("liver", 2)
    assert liver.mean == pytest.approx(np.mean(last))
    assert liver.standard_deviation == pytest.approx(np.std(last))
    for name, array in release.weights().items():
        assert_array_equal(array, outcome.groups["CT"].model[name])


def two_organs(seed: int, annotated: tuple[int, ...]) -> PreparedCase:
    """A bright box (1) and a dark one (2) in noise; whoever outlines them may leave out either."""
    generator = np.random.default_rng(seed)
    image = generator.normal(0.5, 0.03, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for value, level, side in ((1, 0.95, 1), (2, 0.05, 17)):
        j, i = generator.integers(1, 18), generator.integers(side, side + 3)
        box = (slice(None), slice(j, j + 12), slice(i, i + 11))
        image[box] = level
        if value in annotated:
            labels[box] = value
    name = f"case-{seed}"
    return PreparedCase(name, name, image[None].astype(np.float16), labels, Grid(SHAPE, (1.0, 1.0, 2.0)), annotated)


def test_sites_that_annotate_disjoint_organs_train_a_model_of_both(tmp_path):
    labels = [
        {"name": name, "value": value, "type": {"code": "1", "meaning": name}, "colour": (value, 0, 0)}
        for value, name in ((1, "bright"), (2, "dark"))
    ]
    config = small(grouping="together", aggregation={"rule": "fedavg"}, contract={"labels": labels}, rounds=14)
    halves = {
        "bright": ("CT", Cohort((two_organs(0, (1,)), two_organs(1, (1,))), ())),
        "dark": ("CT", Cohort((two_organs(2, (2,)), two_organs(3, (2,))), ())),
    }
    outcome = run_in_process(config, halves, tmp_path / "run")
    group = outcome.groups["all"]
    assert group.trained_values() == (1, 2)
    unseen = [two_organs(seed, (1, 2)) for seed in (7, 8)]
    judge = LocalTrainer(training_task(config, "CT"), Cohort(tuple(unseen), ()), site="judge")
    found = {(score.case, score.label): score.dice for score in judge.score(group.model, unseen)}
    assert len(found) == 4
    assert min(found.values()) > 0.55, found


def test_flowers_server_app_runs_the_federation_of_its_run(tmp_path, monkeypatch):
    config = small(rounds=2)
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "federation.json").write_text(config.model_dump_json())
    write_initial_models(folder, config)
    monkeypatch.setenv("FEDSEG_RUNS", str(tmp_path / "runs"))
    nodes = {
        name: LocalNode(make_client_app(InProcessTrainer(name, *site, progress=Progress())))
        for name, site in sites().items()
    }
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"run": "first"})
    app(LocalGrid(nodes), context)
    same(FederationOutcome.load(folder), run_in_process(config, sites(), tmp_path / "in-process"))


def test_a_cancelled_run_goes_on_to_the_same_bits(tmp_path):
    whole = run_in_process(small(), sites(), tmp_path / "whole")
    progress = Progress()

    def cancel(event):
        if event.event == "round-started" and event.round_number == 3:
            progress.cancel()

    with pytest.raises(CancelledError):
        run_in_process(small(), sites(), tmp_path / "cut", progress, on_event=cancel)
    assert FederationOutcome.load(tmp_path / "cut").groups["CT"].rounds == 2
    same(whole, run_in_process(small(), sites(), tmp_path / "cut"))


def test_the_plateau_schedule_goes_on_where_a_cancelled_run_stood(tmp_path):
    # a scored case without the label, of which the model always finds some: Dice stays 0, the rate is halved in round 5
    empty = replace(case(2), labels=np.zeros(SHAPE, np.uint8))
    training = {**small().training.model_dump(), "schedule": "fedgin_plateau", "learning_rate": 2e-5}
    config = small(rounds=6, training={**training, "steps_per_round": 1}, aggregation={"rule": "fedavg"})
    ct = {"ct-1": ("CT", Cohort((case(0), case(1)), (empty,)))}
    whole = run_in_process(config, ct, tmp_path / "whole")
    progress = Progress()

    def cancel(event):
        if event.event == "round-started" and event.round_number == 6:
            progress.cancel()

    with pytest.raises(CancelledError):
        run_in_process(config, ct, tmp_path / "cut", progress, on_event=cancel)
    before = FederationOutcome.load(tmp_path / "cut").groups["CT"].model
    resumed = run_in_process(config, ct, tmp_path / "cut")
    same(whole, resumed)
    after = resumed.groups["CT"].model
    assert max(float(np.abs(after[name] - before[name]).max()) for name in after) == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize(
    "aggregation", [{"rule": "fedgs"}, {"rule": "flames", "options": {"update": "fedgs"}}, {"rule": "fedavg"}]
)
def test_fedgs_sites_send_what_the_rules_ask_for(tmp_path, aggregation):
    training = {**small().training.model_dump(), "fedgs": {"log_base": 10.0, "threshold": 5.0}}
    config = small(rounds=1, aggregation=aggregation, training=training, grouping="together")
    outcome = run_in_process(config, sites(), tmp_path)
    assert [row.code for row in outcome.groups["all"].history] == ["", "", ""]
    start = initial_model(config.network_of("all", "CT"), config.seed)
    moved = [name for name, array in outcome.groups["all"].model.items() if not np.array_equal(array, start[name])]
    assert set(moved) == set(start)


@pytest.mark.parametrize("drawn", [{}, {"stratified": True}, {"oversampling": {"times": 5, "threshold": 2.0}}])
def test_sites_that_train_by_epochs_do_as_many_steps_as_the_server_takes_at_most(tmp_path, drawn):
    by_epochs = {"steps_per_round": None, "epochs": 2, "batch_size": 3, "foreground_fraction": 0.0, **drawn}
    outcome = run_in_process(
        small(rounds=1, training={**small().training.model_dump(), **by_epochs}), sites(), tmp_path
    )
    for group in outcome.groups.values():
        for row in group.history:
            assert (row.code, row.steps) == ("", 2 * math.ceil(row.examples / 3))


def test_a_rule_whose_sites_send_too_little_says_so(tmp_path):
    config = federation(rounds=1, aggregation={"rule": "fedgs"}, training={"fedgs": {}})
    with pytest.raises(CannotDoHereError, match=r"federation\.nothing-trained"):
        run_in_process(config, {"ct": AddingTrainer()}, tmp_path, make_model=make_model)
    assert FederationOutcome.load(tmp_path).groups == {}
    codes = [event["code"] for event in read_events(tmp_path / "events.jsonl") if event["event"] == "site-failed"]
    assert codes == ["reply.refused-by-rule"] * 3


def test_batch_norm_stays_local_where_it_is_said(tmp_path):
    networks = {"default": NetworkConfig(dimensions=2, options={"channels": [8, 16], "norm": "batch"})}
    with pytest.raises(BadInputError) as error:
        run_in_process(small(networks=networks), sites(), tmp_path / "unsaid")
    assert error.value.code == "federation.batch-norm-policy"
    aggregation = {"rule": "fedavg", "options": {"batch_norm": "local"}}
    outcome = run_in_process(small(networks=networks, aggregation=aggregation, rounds=2), sites(), tmp_path / "said")
    group = outcome.groups["CT"]
    one, two = group.model_of("ct-1"), group.model_of("ct-2")
    differing = {name for name in one if not np.array_equal(one[name], two[name])}
    means = {name for name in one if name.endswith("running_mean")}
    assert means
    assert means <= differing
    assert all(any(name.startswith(mean.removesuffix("running_mean")) for mean in means) for name in differing)


def test_the_first_model_depends_on_the_seed_only(tmp_path):
    import torch

    network = NetworkConfig(dimensions=2, options={"channels": [8, 16]})
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = initial_model(network, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    for name, array in initial_model(network, 5).items():
        assert_array_equal(array, one[name])
    assert any(not np.array_equal(array, one[name]) for name, array in initial_model(network, 6).items())


def test_nothing_is_published_of_a_run_without_a_closed_round(tmp_path):
    with pytest.raises(BadInputError, match=r"release\.nothing-to-publish"):
        publish_outcome(FederationOutcome(federation(), {}), tmp_path, load_or_make_key(tmp_path / "key"))
    with pytest.raises(BadInputError, match=r"federation\.no-run"):
        FederationOutcome.load(tmp_path)
