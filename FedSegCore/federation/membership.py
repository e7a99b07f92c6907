"""Who is there: every node is asked once who it is; sites may come late, go, and come back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.events import Event, EventLog
from FedSegCore.federation.messages import SITE_NAME, SiteIntroduction, read_introduction, write_query
from FedSegCore.federation.software import PROTOCOL, app_fingerprint, flower_minor, software_versions

LOOK_EVERY_S = 1.0
QUERY_DEADLINE_S = 60.0
ASK_AGAIN_S = 30.0

REPLY_CODES = {
    1: "node.app-not-loaded",
    2: "node.app-raised",
    3: "node.reply-lost",
    4: "node.reply-lost",
    5: "node.unavailable",
    7: "node.bundle-refused",
    8: "node.app-crashed",
}
"""Flower's error codes as ours. Its texts may hold a site's paths and are not read."""


def error_code(reply: Message) -> str:
    """Return our code for a reply that carries an error."""
    return REPLY_CODES.get(reply.error.code, "node.failed")


@dataclass
class Site:
    """A site that has introduced itself.

    Attributes:
        node_id: its present Flower node.
        introduction: who it says it is.
        online: whether its node is connected.
        late_in_row: rounds in a row it did not answer in time.
        resting: rounds it is not asked, after being late again and again.
    """

    node_id: int
    introduction: SiteIntroduction
    online: bool = True
    late_in_row: int = 0
    resting: int = 0

    def came_late(self) -> None:
        """Note a missed deadline: asked again in the next round, after that at growing distances (1, 3, 7, 15)."""
        self.late_in_row += 1
        self.resting = min(2 ** (self.late_in_row - 1) - 1, 15)

    def came_in_time(self) -> None:
        """Note an answer."""
        self.late_in_row = self.resting = 0


@dataclass
class _Query:
    node_id: int
    asked: float


@dataclass
class Membership:
    """All sites of a run.

    Args:
        grid: Flower's grid; only public methods are used.
        log: told of sites that join, are refused or leave.
        clock: seconds, monotonic.
    """

    grid: Grid
    log: EventLog
    clock: Callable[[], float]
    sites: dict[str, Site] = field(default_factory=dict)
    _queries: dict[str, _Query] = field(default_factory=dict)
    _not_before: dict[int, float] = field(default_factory=dict)
    _next_look: float = 0.0
    _names: dict[int, str] = field(default_factory=dict)

    def update(self, *, now_at_once: bool = False) -> bool:
        """Look who is connected (at most every second unless ``now_at_once``), ask newcomers, read introductions.

        Returns:
            Whether a site joined, left or was refused.
        """
        now = self.clock()
        changed = False
        if now_at_once or now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            changed = self._look(now)
        return self._read_answers(now) or changed

    @property
    def asking(self) -> bool:
        """Whether a node that was asked who it is has yet to answer."""
        return bool(self._queries)

    def online(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` whose node is connected."""
        return [name for name in names if self.sites[name].online]

    def _look(self, now: float) -> bool:
        nodes = {node.node_id: node.name for node in self.grid.get_nodes()}
        self._names = nodes
        changed = False
        for name, site in self.sites.items():
            if site.online and site.node_id not in nodes:
                site.online = False
                changed = True
                self.log.emit(Event("site-left", f"Site {name} is not connected any more.", site=name))
        known = {site.node_id for site in self.sites.values() if site.online}
        asked = {query.node_id for query in self._queries.values()}
        for node_id in nodes.keys() - known - asked:
            if now >= self._not_before.get(node_id, 0.0):
                self._ask(node_id, now)
        return changed

    def _ask(self, node_id: int, now: float) -> None:
        message = Message(write_query(), node_id, MessageType.QUERY, group_id="query", ttl=QUERY_DEADLINE_S)
        for message_id in self.grid.push_messages([message]):
            if message_id:
                self._queries[message_id] = _Query(node_id, now)

    def _read_answers(self, now: float) -> bool:
        changed = False
        for message_id, query in list(self._queries.items()):
            for reply in self.grid.pull_messages([message_id]):
                del self._queries[message_id]
                changed = True
                self._take(query.node_id, reply, now)
            if message_id in self._queries and now - query.asked > QUERY_DEADLINE_S:
                del self._queries[message_id]
                self._refuse(query.node_id, "", "node.silent", "did not say who it is", now)
                changed = True
        return changed

    def _take(self, node_id: int, reply: Message, now: float) -> None:
        try:
            if reply.has_error():
                raise FedSegError(error_code(reply), "The node answered with an error.", "Read the site's log.")
            introduction = read_introduction(reply.content)
        except FedSegError as error:
            self._refuse(node_id, "", error.code, "could not say who it is", now)
            return
        registered = self._names.get(node_id, "")
        if registered:
            # the name given at admission counts, whatever a node says
            introduction = introduction.model_copy(update={"site": registered})
        if not SITE_NAME.fullmatch(introduction.site):
            self._refuse(node_id, "", "site.name", "was registered under a name that cannot be used", now)
            return
        code, why = self._objection(node_id, introduction)
        if code:
            self._refuse(node_id, introduction.site, code, why, now)
            return
        self._admit(node_id, introduction)

    def _objection(self, node_id: int, introduction: SiteIntroduction) -> tuple[str, str]:
        present = self.sites.get(introduction.site)
        if present is not None and present.online and present.node_id != node_id:
            return "site.name-taken", "has the name of a connected site"
        if introduction.protocol != PROTOCOL:
            return "site.protocol", "speaks another version of the federation's messages"
        if flower_minor(introduction.software) != flower_minor(software_versions()):
            return "site.flower-version", "runs another version of Flower"
        return "", ""

    def _admit(self, node_id: int, introduction: SiteIntroduction) -> None:
        self.sites[introduction.site] = Site(node_id, introduction)
        same = introduction.fingerprint == app_fingerprint()
        data = {
            "modality": introduction.modality,
            "training_cases": introduction.training_cases,
            "validation_cases": introduction.validation_cases,
            "same_app": same,
        }
        note = "" if same else " Its FedSegCore differs from the server's."
        self.log.emit(
            Event(
                "site-joined",
                f"Site {introduction.site} ({introduction.modality}, {introduction.training_cases} training cases) "
                f"joined.{note}",
                site=introduction.site,
                data=data,
            )
        )

    def _refuse(self, node_id: int, site: str, code: str, why: str, now: float) -> None:
        self._not_before[node_id] = now + ASK_AGAIN_S
        who = f"Site {site}" if site else f"Node {node_id}"
        self.log.emit(Event("site-refused", f"{who} {why}; it is asked again later.", site=site, code=code))
