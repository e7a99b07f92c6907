"""A site's trainer behind its socket: policy, gate and journal where no server and no client app can go round them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import MessageType
from gated_site import Served, ask, entries, only_a_code, order, train, with_privacy
from tiny_deployment import tiny_federation, tiny_policy

from FedSegCore.federation.compression import lowered, raised
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_introduction, read_result, write_order, write_query
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Introduced, Left, Refused
from FedSegCore.federation.site.journal_words import entry_words
from FedSegCore.federation.site.policy import write_policy
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.privacy import PrivacyRules

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")


def test_what_leaves_is_what_the_journal_says(served: Served) -> None:
    site, _ = served
    introduced = ask(site, write_query(), MessageType.QUERY)
    assert read_introduction(introduced).training_cases == 1
    answered = train(site, order())
    report, _, _ = read_result(answered)
    told = entries(site)
    assert [entry.kind for entry in told] == ["enrolled", "introduced", "order-received", "cohort-read", "left"]
    assert isinstance(told[1], Introduced)
    assert told[1].sha256 == payload_of(introduced).sha256
    assert isinstance(told[4], Left)
    sent = payload_of(answered)
    assert (told[4].tensors, told[4].bytes, told[4].sha256) == (sent.tensors, sent.bytes, sent.sha256)
    assert [score.case[:5] for score in report.scores] == ["case-"]
    written = b"".join(file.read_bytes() for file in (site.path / "journal").iterdir())
    for telling in (b"c0", b"p1-", b"image0", bytes(site.cohort), site.settings().name.encode() + b'"'):
        assert b'"' + telling not in written, telling


def test_files_that_were_edited_on_windows_are_read(served: Served) -> None:
    """With the byte order mark that some of its editors put before the text."""
    site, _ = served
    for file in (site.cohort, site.policy_file):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_result(train(site, order()))[0].num_examples == 1


@pytest.mark.parametrize(
    ("limits", "asked", "code", "bounds"),
    [
        ({"epochs": 3}, {"steps_per_round": None, "epochs": 90}, "policy.epochs", (90, 3)),
        ({"steps_per_round": 10}, {"steps_per_round": 11}, "policy.steps", (11, 10)),
        ({"rounds": 5}, {"rounds": 6}, "policy.rounds", (6, 5)),
    ],
)
def test_an_order_beyond_the_policy_is_refused_and_journalled_before_any_image_is_read(
    served: Served, limits: dict[str, int], asked: dict[str, object], code: str, bounds: tuple[float, float]
) -> None:
    site, _ = served
    write_policy(site.policy_file, tiny_policy(**limits))
    assert only_a_code(train(site, order(**asked))) == code
    told = entries(site)
    assert [entry.kind for entry in told] == ["enrolled", "policy-changed", "order-received", "refused"]
    assert told[-1] == Refused(code=code, round_number=1, measured=float(bounds[0]), allowed=float(bounds[1]))


def test_an_update_beyond_the_bound_stays_and_the_server_sees_a_code(served: Served) -> None:
    site, _ = served
    with_privacy(site, norm_bound=1e-9)
    assert only_a_code(train(site, order())) == "gate.norm"
    refused = entries(site)[-1]
    assert isinstance(refused, Refused)
    assert refused.measured > refused.allowed > 0.0
    assert not [entry for entry in entries(site) if isinstance(entry, Left)]


def test_a_federation_may_ask_for_stricter_but_never_for_laxer(served: Served) -> None:
    site, _ = served
    with_privacy(site, minimum_cases=1, decimals=2, metrics=("overlap", "loss"))
    assert only_a_code(train(site, order(PrivacyRules(minimum_cases=2)))) == "gate.too-few-cases"
    report, _, _ = read_result(train(site, order(PrivacyRules(metrics=("overlap", "seconds"), decimals=6))))
    assert (report.loss, report.seconds) == (None, {})
    assert all(score.dice == round(score.dice, 2) for score in report.scores)
    with_privacy(site, minimum_cases=2)
    assert only_a_code(train(site, order(PrivacyRules(minimum_cases=1)))) == "gate.too-few-cases"
    assert only_a_code(ask(site, write_query(), MessageType.QUERY)) == "gate.too-few-cases"


def test_epsilon_runs_on_from_the_journal_until_the_limit(served: Served) -> None:
    pytest.importorskip("opacus")
    site, _ = served
    with_privacy(site, clip_norm=1.0, noise_multiplier=20.0, epsilon_limit=0.75)
    replies = [train(site, order()) for _ in range(2)]
    first, second = (entry for entry in entries(site) if isinstance(entry, Left))
    assert 0.0 < first.epsilon < second.epsilon
    assert (first.noise_multiplier, first.delta) == (20.0, 1e-5)
    weights = [read_result(reply)[1] for reply in replies]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    with_privacy(site, clip_norm=1.0, noise_multiplier=20.0, epsilon_limit=second.epsilon * 1.01)
    assert only_a_code(train(site, order())) == "gate.privacy-spent"
    # noise the federation asks for is added and counted too
    with_privacy(site)
    train(site, order(PrivacyRules(clip_norm=1.0, noise_multiplier=20.0)))
    assert [entry for entry in entries(site) if isinstance(entry, Left)][-1].epsilon > second.epsilon


def test_noise_that_is_turned_on_later_promises_nothing(served: Served) -> None:
    site, _ = served
    train(site, order())
    with_privacy(site, clip_norm=1.0, noise_multiplier=20.0)
    train(site, order())
    left = entries(site)[-1]
    assert isinstance(left, Left)
    assert (left.noise_multiplier, left.epsilon) == (20.0, None)
    assert "ε has no bound" in entry_words(left)[1]
    with_privacy(site, clip_norm=1.0, noise_multiplier=20.0, epsilon_limit=1000.0)
    assert only_a_code(train(site, order())) == "gate.privacy-spent"
    assert entries(site)[-1] == Refused(code="gate.privacy-spent", round_number=1, allowed=1000.0)


def test_without_its_journal_or_policy_a_site_sends_nothing(served: Served) -> None:
    site, _ = served
    policy = site.policy_file.read_bytes()
    site.policy_file.write_bytes(b"{}}")
    assert only_a_code(train(site, order())) == "policy.invalid"
    assert entries(site)[-1] == Refused(code="policy.invalid")
    site.policy_file.write_bytes(policy)
    (file,) = (site.path / "journal").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-3])
    assert only_a_code(train(site, order())) == "journal.broken"
    assert only_a_code(ask(site, write_query(), MessageType.QUERY)) == "journal.broken"


def test_malformed_orders_are_journalled_by_their_code(served: Served) -> None:
    site, _ = served
    assert only_a_code(train(site, write_query())) == "request.incomplete"
    assert entries(site)[-1] == Refused(code="request.incomplete")


def test_the_commands_show_policy_and_journal(
    site: SiteFolder, fedseg: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    site.journal.append(Refused(code="gate.norm", round_number=2, measured=99.0, allowed=10.0))
    shown = fedseg("site", "journal", site.path)
    assert shown.code == 0
    for words in ("enrolled", "gate.norm", "too long", "99", "round 2"):
        assert words in shown.err
    assert '"kind": "refused"' in fedseg("site", "journal", site.path, "--json").out
    assert fedseg("site", "journal", site.path, "--verify").code == 0
    assert "fewer than 1 patients" in fedseg("site", "policy", site.path).err
    assert '"minimum_cases": 1' in fedseg("site", "policy", site.path, "--json").out
    (file,) = (site.path / "journal").glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"measured":99.0', b'"measured":98.0'))
    broken = fedseg("site", "journal", site.path, "--verify", "--json")
    assert broken.code == 3
    assert '"line": 2' in broken.out
    assert "journal.broken" in broken.err
    assert fedseg("site", "journal", site.path).code == 3


def test_a_shortened_answer_is_journalled_as_it_leaves_and_stays_within_the_clipping_norm(served: Served) -> None:
    site, _ = served
    with_privacy(site, clip_norm=0.05, norm_bound=10.0)
    config = tiny_federation(exchange=ExchangeConfig(precision="int8", top_k=0.2, downlink="float16"))
    task = training_task(config, "CT")
    model = initial_model(task.network, 3)
    received = raised(lowered(model, config.exchange))
    for number in (1, 2, 3):
        asked = RoundOrder(group="CT", round_number=number, rounds=3, seed=3, task=task, exchange=config.exchange)
        answered = train(site, write_order(asked, to_record(lowered(model, config.exchange))))
        left = entries(site)[-1]
        assert isinstance(left, Left)
        assert left.sha256 == payload_of(answered).sha256
        report, weights, _ = read_result(answered, received)
        assert report.encoded
        change = [weights[name] - array for name, array in received.items() if array.dtype.kind == "f"]
        # what was held back in the rounds before joins the update before it is clipped
        assert 0.0 < np.sqrt(sum(float((one.astype(np.float64) ** 2).sum()) for one in change)) <= 0.05 * (1 + 1e-4)
    kept = site.training / "remainder"
    assert len(list(kept.iterdir())) == 2
    assert kept.stat().st_mode & 0o077 == 0


def test_scores_that_may_not_leave_still_count_for_the_sites_own_schedule(served: Served) -> None:
    site, _ = served
    with_privacy(site, metrics=())
    report, _, _ = read_result(train(site, order(schedule="fedgin_plateau")))
    assert report.scores == ()
    known = json.loads((site.training / "validation.json").read_text())
    assert list(known["losses"]) == ["1"]
    assert 0.0 <= known["losses"]["1"] <= 1.0
