"""The coordinator's side of delivery: every connected site is offered the newest releases and sent what it wants."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from pydantic import BaseModel, ConfigDict, ValidationError

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.federation.events import Event, EventLog
from FedSegCore.federation.membership import error_code
from FedSegCore.federation.release_messages import read_answer, write_offers, write_parcel
from FedSegCore.models.release import Release, open_release

PLAN_FILE = "delivery.json"

_PATIENCE_S = 30.0
_ANSWER_S = 300.0
"""A site that trains in another run answers when its round is done; who takes longer gets it at the next delivery."""

_TRANSFER_S = 3600.0
_TTL_MARGIN_S = 60.0


class DeliveryPlan(BaseModel):
    """What a delivery run shall do; lies in the run's folder.

    Attributes:
        releases: the folder of releases.
        ids: which of them.
        sites: names of the admitted sites: once all have been served, nobody else is waited for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    releases: Path
    ids: tuple[str, ...]
    sites: tuple[str, ...] = ()


def read_plan(run_folder: Path) -> DeliveryPlan:
    """Return the plan in a run's folder; raises BadInputError ``run.config``."""
    try:
        return DeliveryPlan.model_validate_json((run_folder / PLAN_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInputError("run.config", f"{PLAN_FILE} of the run cannot be used.", "Deliver again.") from error


@dataclass
class _Course:
    """One node's delivery: what it was sent last, since when, and what is still to be sent."""

    site: str
    message: str = ""
    until: float = 0.0
    sending: Release | None = None
    to_send: list[Release] = field(default_factory=list)
    ended: bool = False


class Delivery:
    """Offers releases to whoever is connected and sends what is wanted, one release at a time a site.

    Args:
        grid: Flower's grid.
        releases: opened releases.
        log: told what each site took or declined.
        sites: names of the sites that are expected.
        clock: seconds, monotonic.
        sleep: pauses.
        poll_s: pause when nothing happens.
    """

    def __init__(
        self,
        grid: Grid,
        releases: Sequence[Release],
        log: EventLog,
        *,
        sites: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        poll_s: float = 1.0,
    ) -> None:
        self._grid = grid
        self._releases = {release.id: release for release in releases}
        self._log = log
        self._sites = frozenset(sites)
        self._clock, self._sleep, self._poll_s = clock, sleep, poll_s
        self._courses: dict[int, _Course] = {}

    def run(self) -> None:
        """Deliver; ends when all expected sites are served, or half a minute after nothing more is on its way."""
        if not self._releases:
            return
        idle_since = self._clock()
        while True:
            if self._look() | self._advance():
                idle_since = self._clock()
            served = {course.site for course in self._courses.values() if course.ended}
            pending = any(not course.ended for course in self._courses.values())
            everybody = bool(self._sites) and self._sites <= served
            if not pending and (everybody or self._clock() - idle_since >= _PATIENCE_S):
                break
            self._sleep(self._poll_s)

    def _look(self) -> bool:
        """Offer the releases to nodes that are new."""
        new = {node.node_id: node.name for node in self._grid.get_nodes() if node.node_id not in self._courses}
        for node_id, name in new.items():
            self._courses[node_id] = _Course(name or f"node {node_id}")
            self._send(node_id, write_offers(list(self._releases.values())), _ANSWER_S)
        return bool(new)

    def _send(self, node_id: int, content: RecordDict, limit_s: float) -> None:
        course = self._courses[node_id]
        message = Message(content, node_id, MessageType.QUERY, group_id="releases", ttl=limit_s + _TTL_MARGIN_S)
        sent = [message_id for message_id in self._grid.push_messages([message]) if message_id]
        if sent:
            course.message, course.until = sent[0], self._clock() + limit_s
        else:
            self._give_up(course, "node.unreachable")

    def _advance(self) -> bool:
        happened = False
        for node_id, course in self._courses.items():
            if course.ended:
                continue
            replies = list(self._grid.pull_messages([course.message]))
            if replies:
                self._take(node_id, course, replies[0])
                happened = True
            elif self._clock() > course.until:
                self._give_up(course, "node.silent")
                happened = True
        return happened

    def _take(self, node_id: int, course: _Course, reply: Message) -> None:
        sent, course.sending = course.sending, None
        try:
            if reply.has_error():
                raise FedSegError(error_code(reply), "The node answered with an error.", "Read the site's log.")
            answer = read_answer(reply.content)
        except FedSegError as error:
            self._tell_declined(course.site, sent.id if sent else "", error.code)
        else:
            if sent is not None:
                self._tell_delivered(course.site, sent)
            for release_id, code in answer.declined.items():
                self._tell_declined(course.site, release_id, code)
            course.to_send += [
                self._releases[wanted] for wanted in answer.wanted if wanted in self._releases and not sent
            ]
        if course.to_send:
            course.sending = course.to_send.pop(0)
            self._send(node_id, write_parcel(course.sending), _TRANSFER_S)
        else:
            course.ended = True

    def _give_up(self, course: _Course, code: str) -> None:
        course.ended = True
        self._tell_declined(course.site, course.sending.id if course.sending else "", code)

    def _tell_delivered(self, site: str, release: Release) -> None:
        data = {"release": release.id}
        self._log.emit(Event("release-delivered", f"{site} has received {release.id}.", site=site, data=data))

    def _tell_declined(self, site: str, release_id: str, code: str) -> None:
        what = release_id or "the releases offered"
        data = {"release": release_id}
        self._log.emit(
            Event("release-declined", f"{site} did not take {what} ({code}).", site=site, code=code, data=data)
        )


def deliver_plan(grid: Grid, run_folder: Path, log: EventLog) -> None:
    """Do what the plan in ``run_folder`` says; raises BadInputError ``run.config``, ``release.*``."""
    plan = read_plan(run_folder)
    releases = [open_release(plan.releases / release_id) for release_id in plan.ids]
    Delivery(grid, releases, log, sites=plan.sites).run()
