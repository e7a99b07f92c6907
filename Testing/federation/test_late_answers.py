"""Answers that come after their round are fetched, so that no server keeps them to the end of a run of months."""

from federation_helpers import AddingTrainer, Run, federation

from FedSegCore.federation.late_answers import LATEST_S, LateAnswers
from FedSegCore.federation.outcome import FederationOutcome


def test_an_answer_that_comes_late_is_fetched_and_changes_nothing(tmp_path):
    run = Run(tmp_path, federation(rounds=6), {"a": AddingTrainer(), "b": AddingTrainer()})
    run.nodes["a"].delay_s, run.nodes["b"].delay_s = 30.0, 55.0
    left: list[int] = []
    for number in range(2, 7):
        run.hooks["round-closed", "CT", number] = lambda _: left.append(len(run.grid._pending))
    run.loop().run()
    late = [event for event in run.kinds("site-failed") if event.code == "site.late"]
    assert len(late) >= 3
    # at most the one that was just given up on
    assert max(left) <= 1
    group = FederationOutcome.load(tmp_path).groups["CT"]
    assert {(row.site, row.code) for row in group.history} == {("a", ""), ("b", "site.late")}


class Counting:
    """A grid that has no answers but ``there``."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.asked: list[str] = []

    def pull_messages(self, message_ids):
        self.asked += message_ids
        return [message_id for message_id in message_ids if message_id in self.there]


def test_what_never_comes_is_forgotten_and_seldom_asked_for():
    now, grid = [0.0], Counting()
    late = LateAnswers(grid, lambda: now[0])
    late.expect(["x", "y"])
    for _ in range(9):
        late.fetch()
        now[0] += 1.0
    assert grid.asked == ["x", "y"]
    grid.there = {"y"}
    now[0] += 10.0
    late.fetch()
    for _ in range(int(LATEST_S)):
        now[0] += 10.0
        late.fetch()
    assert grid.asked.count("y") == 2
    assert grid.asked.count("x") <= LATEST_S / 10.0 + 2
