"""Sites of a group below its minimum learn how many more are waited for."""

from pathlib import Path

import pytest
from federation_helpers import AddingTrainer, Run, federation
from flwr.app import ConfigRecord, RecordDict

from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.local_grid import LocalNode
from FedSegCore.federation.messages import read_query, write_query
from FedSegCore.federation.outcome import FederationOutcome


class Watch:
    """An ``AnswerWatch`` that keeps what sites are told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def introduced(self, description, content) -> None:
        pass

    def asked(self, missing: int) -> None:
        self.told.append(missing)

    def refused(self, error) -> None:
        pass


def test_sites_are_told_once_it_is_quiet_and_what_they_answer_changes_nothing(tmp_path: Path):
    watch = Watch()
    run = Run(tmp_path, federation(min_sites=3, rounds=1, join_deadline_s=60.0), {"a": AddingTrainer()})
    run.nodes["a"] = LocalNode(make_client_app(AddingTrainer(), watch))
    run.hooks["waiting", "CT", 1] = lambda event: run.add("b", AddingTrainer()) if event.data["missing"] == 2 else None
    run.loop().run()
    # the first query; then, with b there and nobody else, the notice
    assert watch.told == [0, 1]
    assert [event.data["missing"] for event in run.kinds("waiting")] == [2, 1]
    assert len(run.kinds("site-joined")) == 2
    history = FederationOutcome.load(tmp_path).groups["CT"].history
    assert {row.site: row.code for row in history} == {"a": "", "b": ""}


@pytest.mark.parametrize("said", [-1, 10**9, "3", 2.5, None])
def test_a_site_takes_no_nonsense_for_a_number_of_sites(said: object):
    assert read_query(write_query(2)) == 2
    record = ConfigRecord() if said is None else ConfigRecord({"missing": said})
    assert read_query(RecordDict({"query": record})) == 0
    assert read_query(RecordDict()) == 0
