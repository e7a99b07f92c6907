"""One group's round while it is open: orders out, answers in, folded one at a time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.aggregation.rule import AggregationRule, Arrays, SiteUpdate
from FedSegCore.federation.checks import check_report, check_result
from FedSegCore.federation.membership import Site, error_code
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.state_store import GroupState, SiteRound
from FedSegCore.federation.tensors import byte_count, to_record

_TTL_MARGIN_S = 60.0


@dataclass
class OpenRound:
    """A round of a group.

    Args:
        state: the group before the round.
        rule: begun with that state.
        started: clock reading.
        deadline: clock reading at which who has not answered is late.
        labels: number of labels of the contract.
    """

    state: GroupState
    rule: AggregationRule
    started: float
    deadline: float
    labels: int
    waiting: dict[str, str] = field(default_factory=dict)
    rows: list[SiteRound] = field(default_factory=list)
    _asked: dict[str, Site] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The round's number, 1-based."""
        return self.state.round_number + 1

    @property
    def answered(self) -> tuple[str, ...]:
        """Sites whose answers were used, in order of arrival."""
        return tuple(row.site for row in self.rows if not row.code)

    def ask(self, grid: Grid, sites: Mapping[str, Site], orders: Mapping[str, RoundOrder]) -> None:
        """Send every site of ``orders`` its model and order; who cannot be reached counts as failed."""
        # one record for all who get the group model: its chunks are stored and sent to the SuperLink once
        shared = to_record(self.state.model)
        for name, order in orders.items():
            own = self.state.site_models.get(name)
            record = shared if own is None else to_record(own)
            message = Message(
                write_order(order, record),
                sites[name].node_id,
                MessageType.TRAIN,
                group_id=f"{self.state.group}-{self.number}",
                ttl=self.deadline - self.started + _TTL_MARGIN_S,
            )
            sent = [message_id for message_id in grid.push_messages([message]) if message_id]
            if sent:
                self.waiting[sent[0]] = name
                self._asked[name] = sites[name]
            else:
                self.fail(name, "node.unreachable", self.started)

    def take(self, reply: Message, now: float) -> SiteRound:
        """Check one reply and fold it, or note why not; the site is known by the message it answers."""
        site = self.waiting.pop(reply.metadata.reply_to_message_id)
        try:
            row = self._fold(site, reply, now)
        except FedSegError as error:
            return self.fail(site, error.code, now)
        except ValueError:
            return self.fail(site, "reply.refused-by-rule", now)
        self.rows.append(row)
        return row

    def fail(self, site: str, code: str, now: float) -> SiteRound:
        """Note that ``site`` gives nothing to this round."""
        row = SiteRound(round_number=self.number, site=site, code=code, answer_seconds=round(now - self.started, 3))
        self.rows.append(row)
        return row

    def restarted(self, sites: Mapping[str, Site]) -> list[str]:
        """Return awaited sites that have introduced themselves anew: a node answers in turn, so the order was lost."""
        return [name for name in self.waiting.values() if sites[name] is not self._asked[name]]

    def give_up_on(self, sites: Iterable[str]) -> None:
        """Wait for ``sites`` no longer."""
        gone = set(sites)
        self.waiting = {message_id: site for message_id, site in self.waiting.items() if site not in gone}

    def _fold(self, site: str, reply: Message, now: float) -> SiteRound:
        if reply.has_error():
            raise FedSegError(error_code(reply), "The node answered with an error.", "Read the site's log.")
        payload = payload_of(reply.content)
        report, weights, extras = read_result(reply.content)
        check_result(report, weights, extras, self.state.model, self.number)
        check_report(report, self.labels)
        received: Arrays = self.state.site_models.get(site, {})
        self.rule.fold(SiteUpdate(site, weights, report.num_examples, report.num_steps, extras, received))
        return SiteRound(
            round_number=self.number,
            site=site,
            loss=report.loss,
            examples=report.num_examples,
            steps=report.num_steps,
            bytes_received=byte_count(weights) + byte_count(extras),
            payload_bytes=payload.bytes,
            payload_sha256=payload.sha256,
            answer_seconds=round(now - self.started, 3),
            seconds=report.seconds,
            scores=report.scores,
            annotated=report.annotated,
        )
