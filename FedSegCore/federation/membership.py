"""Who is there: every node is asked once who it is; sites may come late, go, and come back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.names import is_name
from FedSegCore.federation.events import Event, EventLog
from FedSegCore.federation.messages import SiteIntroduction, read_introduction, write_query
from FedSegCore.federation.reason_words import code_words
from FedSegCore.federation.software import PROTOCOL, app_fingerprint, flower_minor, software_versions

LOOK_EVERY_S = 1.0
QUERY_DEADLINE_S = 90.0
"""A node whose client app was killed answers again after 66 s; asked too early it would only be asked later again."""

ASK_AGAIN_S = 30.0
"""Pause before a node that was refused, or has not answered yet, is asked once more: a message can be lost."""

MOST_PAUSE_S = 600.0
"""A node that is refused again and again is asked at distances that double up to this: a site may gather its first
cases for weeks, and each refusal is an event here, an entry in its journal and a second of its processor."""

UNREADABLE, TOO_LARGE = 1001, 1002
"""Codes beside Flower's, of answers that are none, or that are not read since they are too large."""

REPLY_CODES = {
    1: "node.app-not-loaded",
    2: "node.app-raised",
    3: "node.reply-lost",
    4: "node.reply-lost",
    5: "node.unavailable",
    7: "node.bundle-refused",
    8: "node.app-crashed",
    UNREADABLE: "reply.unreadable",
    TOO_LARGE: "reply.too-large",
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
    first: float
    latest: float
    messages: list[str]


@dataclass
class Membership:
    """All sites of a run.

    Args:
        grid: Flower's grid; only public methods are used.
        log: told of sites that join, are refused or leave.
        clock: seconds, monotonic.
        serves: whether the federation trains a modality.
    """

    grid: Grid
    log: EventLog
    clock: Callable[[], float]
    serves: Callable[[str], bool]
    sites: dict[str, Site] = field(default_factory=dict)
    _queries: dict[int, _Query] = field(default_factory=dict)
    _not_before: dict[int, float] = field(default_factory=dict)
    _refused: dict[int, int] = field(default_factory=dict)
    _notices: dict[str, float] = field(default_factory=dict)
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
        """Whether a new node that was asked who it is has yet to answer; one that was refused before is not waited for.

        Else a few nodes that never answer, each asked again in its turn, would keep a run from ever ending.
        """
        return any(node_id not in self._not_before for node_id in self._queries)

    def online(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` whose node is connected."""
        return [name for name in names if self.sites[name].online]

    def tell_waiting(self, names: Iterable[str], missing: int) -> None:
        """Let connected sites of ``names`` know how many more their group waits for; what they answer is not read."""
        now = self.clock()
        told = [
            Message(write_query(missing), node, MessageType.QUERY, group_id="query", ttl=QUERY_DEADLINE_S)
            for node in (self.sites[name].node_id for name in self.online(names))
        ]
        self._notices |= {message_id: now for message_id in self.grid.push_messages(told) if message_id}

    def _drop_answered_notices(self, now: float) -> None:
        for message_id, sent in list(self._notices.items()):
            if list(self.grid.pull_messages([message_id])) or now - sent > QUERY_DEADLINE_S:
                del self._notices[message_id]

    def _look(self, now: float) -> bool:
        nodes = {node.node_id: node.name for node in self.grid.get_nodes()}
        self._names = nodes
        changed = False
        for name, site in self.sites.items():
            if site.online and site.node_id not in nodes:
                site.online = False
                changed = True
                self.log.emit(Event("site-left", f"Site {name} is not connected any more.", site=name))
        for node_id in self._refused.keys() - nodes.keys():
            # who comes back, after a cure it may be, is asked soon
            del self._refused[node_id]
            self._not_before[node_id] = min(self._not_before[node_id], now + ASK_AGAIN_S)
        known = {site.node_id for site in self.sites.values() if site.online}
        for node_id in nodes.keys() - known:
            query = self._queries.get(node_id)
            due = self._not_before.get(node_id, 0.0) if query is None else query.latest + ASK_AGAIN_S
            if now >= due:
                self._ask(node_id, now)
        return changed

    def _ask(self, node_id: int, now: float) -> None:
        message = Message(write_query(), node_id, MessageType.QUERY, group_id="query", ttl=QUERY_DEADLINE_S)
        for message_id in self.grid.push_messages([message]):
            if message_id:
                query = self._queries.setdefault(node_id, _Query(now, now, []))
                query.latest = now
                query.messages.append(message_id)

    def _read_answers(self, now: float) -> bool:
        self._drop_answered_notices(now)
        changed = False
        for node_id, query in list(self._queries.items()):
            reply = self._first_reply(query)
            if reply is not None:
                del self._queries[node_id]
                self._take(node_id, reply, now)
                changed = True
            elif now - query.first > QUERY_DEADLINE_S:
                del self._queries[node_id]
                self._refuse(node_id, self._registered(node_id), "node.silent", "did not say who it is", now)
                changed = True
        return changed

    def _first_reply(self, query: _Query) -> Message | None:
        """Return the first answer to any of the messages; an error only where nothing else can come any more."""
        for message_id in list(query.messages):
            for reply in self.grid.pull_messages([message_id]):
                query.messages.remove(message_id)
                if not (reply.has_error() and query.messages):
                    return reply
        return None

    def _take(self, node_id: int, reply: Message, now: float) -> None:
        try:
            if reply.has_error():
                raise FedSegError(error_code(reply), "The node answered with an error.", "Read the site's log.")
            introduction = read_introduction(reply.content)
        except FedSegError as error:
            why = f"could not say who it is: {code_words(error.code) or error.code}"
            self._refuse(node_id, self._registered(node_id), error.code, why, now)
            return
        if registered := self._names.get(node_id, ""):
            # the name given at admission counts, whatever a node says
            introduction = introduction.model_copy(update={"site": registered})
        if not is_name(introduction.site):
            self._refuse(node_id, "", "site.name", "was registered under a name that cannot be used", now)
            return
        code, why = self._objection(node_id, introduction)
        if code:
            self._refuse(node_id, introduction.site, code, why, now)
            return
        self._admit(node_id, introduction)

    def _registered(self, node_id: int) -> str:
        """Return the name under which a node was admitted; empty where that is none or cannot be used."""
        name = self._names.get(node_id, "")
        return name if is_name(name) else ""

    def _objection(self, node_id: int, introduction: SiteIntroduction) -> tuple[str, str]:
        present = self.sites.get(introduction.site)
        if present is not None and present.online and present.node_id != node_id:
            return "site.name-taken", "has the name of a connected site"
        if introduction.protocol != PROTOCOL:
            return "site.protocol", "speaks another version of the federation's messages"
        if flower_minor(introduction.software) != flower_minor(software_versions()):
            return "site.flower-version", "runs another version of Flower"
        if not self.serves(introduction.modality):
            return "site.modality", "has images of a modality that this federation does not train"
        return "", ""

    def _admit(self, node_id: int, introduction: SiteIntroduction) -> None:
        self.sites[introduction.site] = Site(node_id, introduction)
        self._refused.pop(node_id, None)
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
        pause = min(ASK_AGAIN_S * 2 ** self._refused.get(node_id, 0), MOST_PAUSE_S)
        self._refused[node_id] = min(self._refused.get(node_id, 0) + 1, 10)
        self._not_before[node_id] = now + pause
        who = f"Site {site}" if site else f"Node {node_id}"
        self.log.emit(Event("site-refused", f"{who} {why}; it is asked again later.", site=site, code=code))
