"""What servers may take of a site's computer in all: hours and room, counted over runs from the journal."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from gated_site import Served, entries, only_a_code, order, train
from hypothesis import given
from hypothesis import strategies as st
from tiny_deployment import tiny_policy

from FedSegCore.federation.site.budget import bytes_grown, check_hours, check_room, hours_worked
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import FIRST_PREVIOUS, Entry, Introduced, Line, OrderReceived, Refused
from FedSegCore.federation.site.policy import PolicyError, WorkBudget, policy_words, write_policy

NOON = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)
ORDER = OrderReceived(round_number=1, rounds=2, modality="CT", tensors=1, bytes=4, steps=1, epochs=1, batch_size=1)
END = Refused(code="training.failed")
OTHER = Introduced(training_cases=1, validation_cases=1, bytes=1, sha256="0" * 64)
FOUR = timedelta(hours=4)


def lines(*told: tuple[float, Entry]) -> list[Line]:
    """Return lines at so many hours after noon."""
    moment = [(NOON + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ") for hours, _ in told]
    return [Line.make(n, moment[n - 1], FIRST_PREVIOUS, entry) for n, (_, entry) in enumerate(told, 1)]


def test_hours_are_counted_from_an_order_to_its_end() -> None:
    told = lines((0.0, ORDER), (0.5, OTHER), (1.5, END), (2.0, OTHER), (3.0, END), (4.0, ORDER), (4.25, END))
    assert hours_worked(told, NOON, FOUR) == pytest.approx(1.75)
    # the part before ``since`` is left out
    assert hours_worked(told, NOON + timedelta(hours=1), FOUR) == pytest.approx(0.75)
    assert hours_worked(told, NOON + timedelta(hours=5), FOUR) == 0.0


def test_an_order_without_an_end_counts_until_the_next_but_no_longer_than_a_round() -> None:
    assert hours_worked(lines((0.0, ORDER), (1.0, ORDER), (1.5, END)), NOON, FOUR) == pytest.approx(1.5)
    assert hours_worked(lines((0.0, ORDER), (50.0, ORDER), (50.5, END)), NOON, FOUR) == pytest.approx(4.5)
    # the last one is being worked on
    assert hours_worked(lines((0.0, ORDER)), NOON, FOUR) == 0.0


@pytest.mark.parametrize(
    "code", ["site.bundle-refused", "trainer.busy", "request.invalid", "policy.message-size", "release.none"]
)
def test_another_message_in_between_does_not_end_the_counting(code: str) -> None:
    """Else a server could get all hours by sending what is refused after each of its orders."""
    between = Refused(code=code)
    assert hours_worked(lines((0.0, ORDER), (0.1, between), (3.0, END)), NOON, FOUR) == pytest.approx(3.0)
    # one with a round's number is that of the order itself
    own = Refused(code="gate.norm", round_number=1)
    assert hours_worked(lines((0.0, ORDER), (2.0, own), (3.0, between)), NOON, FOUR) == pytest.approx(2.0)


def test_a_clock_that_is_set_back_makes_no_work_undone() -> None:
    assert hours_worked(lines((2.0, ORDER), (1.0, END), (2.0, ORDER), (3.0, END)), NOON, FOUR) == pytest.approx(1.0)


def test_a_clock_that_was_a_year_ahead_uses_up_no_day_of_that_year(site: SiteFolder) -> None:
    """Fourteen hours at a wrong time, set right three days ago: they count for the week, and for no later one."""
    settings = site.settings().model_copy(update={"round_limit_s": 20 * 3600.0})
    site.settings_file.write_text(settings.model_dump_json())
    year = 365 * 24.0
    journal_of(site, [(100.0, ORDER), (99.0, END), (-year, ORDER), (-year - 14.0, END), (72.0, OTHER), (0.0, ORDER)])
    assert check_hours(site, WorkBudget(), NOON) == pytest.approx((0.0, 15.0))
    assert check_hours(site, WorkBudget(), NOON + timedelta(days=9)) == pytest.approx((0.0, 0.0))


@given(st.lists(st.tuples(st.floats(0, 200), st.sampled_from([ORDER, END, OTHER])), max_size=20))
def test_no_more_hours_are_counted_than_passed(told: list[tuple[float, Entry]]) -> None:
    told.sort(key=lambda pair: pair[0])
    worked = hours_worked(lines(*told), NOON, FOUR)
    passed = told[-1][0] - told[0][0] if told else 0.0
    assert 0.0 <= worked <= passed + 1e-3
    assert worked <= 4.0 * sum(entry is ORDER for _, entry in told)


def journal_of(site: SiteFolder, told: Iterable[tuple[float, Entry]]) -> None:
    """Write entries at so many hours before noon into the site's journal."""
    for hours, entry in told:
        moment = NOON - timedelta(hours=hours)
        Journal(site.path / "journal", clock=lambda moment=moment: moment).append(entry)


def test_the_day_and_the_week_are_counted_over_all_runs(site: SiteFolder) -> None:
    """Orders of 2 h, from 23 to 21 hours before noon on each of five days; the round limit is raised for them."""
    settings = site.settings().model_copy(update={"round_limit_s": 4 * 3600.0})
    site.settings_file.write_text(settings.model_dump_json())
    journal_of(site, [pair for day in range(5, 0, -1) for pair in ((24 * day - 1, ORDER), (24 * day - 3, END))])
    assert check_hours(site, WorkBudget(hours_per_day=8, hours_per_week=60), NOON) == pytest.approx((2.0, 10.0))
    for budget, measured in ((WorkBudget(hours_per_day=2.0), 2.0), (WorkBudget(hours_per_week=9.5), 10.0)):
        with pytest.raises(PolicyError) as refused:
            check_hours(site, budget, NOON)
        assert (refused.value.code, refused.value.measured) == ("policy.hours", pytest.approx(measured))
    # a day later the last day is free again
    assert check_hours(site, WorkBudget(), NOON + timedelta(days=1)) == pytest.approx((0.0, 10.0))


def test_room_counts_what_servers_make_grow_and_nothing_else(site: SiteFolder) -> None:
    before = bytes_grown(site)
    (site.logs / "supernode.log").write_bytes(b"x" * 5000)
    (site.path / "images.nii").write_bytes(b"x" * 9000)
    assert bytes_grown(site) == before + 5000
    check_room(site, WorkBudget(disk_bytes=1024**2))
    (site.logs / "supernode.log").write_bytes(b"x" * 1024**2)
    with pytest.raises(PolicyError) as refused:
        check_room(site, WorkBudget(disk_bytes=1024**2))
    assert refused.value.code == "policy.disk"


unix_only = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")


def kinds(site: SiteFolder) -> list[str]:
    return [entry.kind for entry in entries(site) if entry.kind != "policy-changed"]


def with_budget(site: SiteFolder, **budget: float) -> None:
    write_policy(site.policy_file, tiny_policy().model_copy(update={"budget": WorkBudget.model_validate(budget)}))


@unix_only
def test_a_server_gets_no_more_hours_than_the_policy_gives(served: Served) -> None:
    site, _ = served
    with_budget(site, hours_per_day=0.0)
    assert only_a_code(train(site, order())) == "policy.hours"
    assert kinds(site) == ["enrolled", "order-received", "refused"]
    with_budget(site, hours_per_day=1.0)
    assert "report" in train(site, order())


@unix_only
def test_where_there_is_no_room_left_nothing_is_answered_and_nothing_more_is_written(served: Served) -> None:
    site, _ = served
    with_budget(site, disk_bytes=1024**2)
    (site.logs / "supernode.log").write_bytes(b"x" * 1024**2)
    for _ in range(3):
        assert only_a_code(train(site, order())) == "policy.disk"
    assert kinds(site) == ["enrolled", "refused"]
    (site.logs / "supernode.log").unlink()
    assert "report" in train(site, order())


def test_the_budget_is_told_in_words() -> None:
    words = " ".join(policy_words(tiny_policy()))
    for part in ("14 hours in any 24 hours", "70 in any 7 days", "1024 MiB"):
        assert part in words
