"""A site whose introduction was lost on the way is asked again soon, and joins once."""

from collections.abc import Iterable

from federation_helpers import AddingTrainer, Run, federation
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.monitoring import Monitor
from FedSegCore.federation.coordinator.status import ServerView
from FedSegCore.federation.local_grid import LocalGrid
from FedSegCore.federation.outcome import FederationOutcome


class LosingGrid(LocalGrid):
    """Loses the answers to its first messages, or gives them only after ``late_s``; the sites' own grid else."""

    lose = 1
    late_s = float("inf")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = list(super().push_messages(messages))
        self.lost += ids[: self.lose - len(self.lost)]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        held = [] if self.clock() >= self.late_s else self.lost
        return super().pull_messages([message_id for message_id in message_ids if message_id not in held])


def _run(tmp_path, **how: float) -> Run:
    run = Run(tmp_path, federation(rounds=1, join_deadline_s=200.0), {"a": AddingTrainer()})
    run.grid = LosingGrid(run.nodes, run.clock)
    run.grid.lost = []
    for name, value in how.items():
        setattr(run.grid, name, value)
    run.loop().run()
    return run


def test_a_node_whose_answer_was_lost_is_asked_again_after_half_a_minute(tmp_path):
    run = _run(tmp_path)
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    assert 30.0 <= run.clock() < 33.0
    assert run.kinds("site-refused") == []


def test_a_node_that_answers_late_joins_once(tmp_path):
    run = _run(tmp_path, lose=3, late_s=70.0)
    assert len(run.kinds("site-joined")) == 1
    assert 70.0 <= run.clock() < 73.0


class Empty:
    """The trainer of a site that has too few cases until ``at`` seconds."""

    def __init__(self, clock, at: float) -> None:
        self.asked: list[float] = []
        self._clock, self._at = clock, at
        self._trainer = AddingTrainer()

    def describe(self):
        self.asked.append(self._clock())
        if self._clock() < self._at:
            raise FedSegError("gate.too-few-cases", "Too few.", "Add some.")
        return self._trainer.describe()

    def train_round(self, *args):
        return self._trainer.train_round(*args)


def _with_empty(tmp_path, at: float) -> tuple[Run, Empty]:
    run = Run(tmp_path, federation(rounds=1, min_sites=2, join_deadline_s=20_000.0), {"a": AddingTrainer()})
    empty = Empty(run.clock, at)
    run.add("b", empty)
    return run, empty


def test_a_site_that_gathers_its_first_cases_is_asked_at_growing_distances(tmp_path):
    """In a week it would have been asked 20,000 times, each an entry in its journal."""
    run, empty = _with_empty(tmp_path, at=3000.0)
    run.loop().run()
    pauses = [round(later - earlier, -1) for earlier, later in zip(empty.asked, empty.asked[1:], strict=False)]
    assert pauses[:9] == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0, 600.0]
    assert sorted(FederationOutcome.load(tmp_path).groups["CT"].answering()) == ["a", "b"]


def test_a_site_that_comes_back_after_refusals_is_asked_soon(tmp_path):
    run, empty = _with_empty(tmp_path, at=2000.0)
    sleep = run.clock.sleep

    def restarted(seconds: float) -> None:
        sleep(seconds)
        run.nodes["b"].online = not 2000.0 <= run.clock() < 2010.0

    run.clock.sleep = restarted
    run.loop().run()
    assert empty.asked[-1] < 2050.0


class DeafGrid(LocalGrid):
    """Has nodes that are connected and answer nothing, whatever they are asked."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        def deaf(message_id: str) -> bool:
            asked = self._pending.get(message_id)
            return asked is not None and self._names[asked.message.metadata.dst_node_id].startswith("deaf")

        return super().pull_messages([message_id for message_id in message_ids if not deaf(message_id)])


def test_nodes_that_never_answer_in_turn_do_not_keep_a_run_from_ending(tmp_path):
    """Each is asked for 90 s in every 120: of four there is always one that is being asked."""
    run = Run(tmp_path, federation(rounds=1), {"a": AddingTrainer()})
    run.grid = DeafGrid(run.nodes, run.clock)
    sleep = run.clock.sleep

    def passing(seconds: float) -> None:
        sleep(seconds)
        assert run.clock() < 1000.0, "it goes on for ever"
        if run.clock() % 30.0 < 1.0 and len(run.nodes) < 5:
            run.add(f"deaf-{len(run.nodes)}", AddingTrainer())

    run.clock.sleep = passing
    run.add("deaf-0", AddingTrainer())
    run.loop().run()
    assert FederationOutcome.load(tmp_path).groups["CT"].done
    # the last of them came after 90 s and was given up 90 s later
    assert run.clock() < 250.0


def test_a_node_that_never_answers_is_told_as_silent(tmp_path):
    run = _run(tmp_path, lose=4, late_s=300.0)
    refused = run.kinds("site-refused")
    assert [event.code for event in refused] == ["node.silent"]
    # asked at 0, 30, 60 and 90 s, given up after 90 s, and asked anew half a minute later
    assert 120.0 <= run.clock() < 124.0


class NamingGrid(LocalGrid):
    """Knows the names under which its nodes were admitted, as SuperLink does."""

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node.node_id, name=self._names[node.node_id]) for node in super().get_nodes()]


class TooFewTrainer(AddingTrainer):
    def describe(self):
        raise FedSegError("gate.too-few-cases", "There are too few patients.", "Add patients.")


def test_a_site_that_cannot_say_who_it_is_is_named_with_its_reason_also_on_the_page(tmp_path):
    folder = CoordinatorFolder.create(tmp_path / "coord", CoordinatorSettings(federation="liver", hosts=("localhost",)))
    names = ("here", "small-1", "small-2", "deaf")
    folder.keep_sites(tuple(AdmittedSite(name=name, node_id=n, fingerprint="f") for n, name in enumerate(names)))
    trainers = {name: TooFewTrainer() if name.startswith("small") else AddingTrainer() for name in names}
    run = Run(folder.runs / "first", federation(rounds=1), trainers)

    class Grid(NamingGrid, DeafGrid):
        pass

    run.grid = Grid(run.nodes, run.clock)
    run.loop().run()
    told = {event.site: (event.code, event.message) for event in run.kinds("site-refused")}
    why = "could not say who it is: it has too few patients to answer; it is asked again later."
    assert told == {
        "small-1": ("gate.too-few-cases", f"Site small-1 {why}"),
        "small-2": ("gate.too-few-cases", f"Site small-2 {why}"),
        "deaf": ("node.silent", "Site deaf did not say who it is; it is asked again later."),
    }
    monitor = Monitor(folder, ask=lambda _: ServerView(False))
    monitor.tick()
    page = monitor.page.read_text(encoding="utf-8")
    assert page.count("refused: it has too few patients to answer") == 2
    assert "a node without a name" not in page
