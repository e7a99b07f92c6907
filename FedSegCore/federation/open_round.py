"""One group's round while it is open: orders out, answers in, checked and folded one at a time."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.federation.checks import (
    check_counts,
    check_extras,
    check_length,
    check_report,
    check_result,
    counts_that_weigh,
    update_length,
)
from FedSegCore.federation.compression import lowered
from FedSegCore.federation.incoming import Incoming
from FedSegCore.federation.membership import Site, error_code
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.payload import payload_of, records_of
from FedSegCore.federation.state_store import GroupState, SiteRound
from FedSegCore.federation.tensors import tensor_bytes, to_record
from FedSegCore.learning.privacy import told_usual
from FedSegCore.learning.results import CaseScore

_TTL_MARGIN_S = 60.0
_DIGITS = 16

_log = logging.getLogger(__name__)


@dataclass
class OpenRound:
    """A round of a group.

    Args:
        state: the group before the round.
        incoming: where checked updates go, before a rule begun with that state.
        started: clock reading.
        deadline: clock reading at which who has not answered is late.
        labels: names of the contract's labels.
        waiting: message id → site that has yet to answer.
        rows: what sites did so far, in order of arrival.
        digests: site → hash of the tensors it answered with.
        bytes_sent: of the models that went out.
        asked: site → who it was when it was asked: it may come back as another while the round is open.
    """

    state: GroupState
    incoming: Incoming
    started: float
    deadline: float
    labels: tuple[str, ...]
    waiting: dict[str, str] = field(default_factory=dict)
    rows: list[SiteRound] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    bytes_sent: int = 0
    asked: dict[str, Site] = field(default_factory=dict)
    _orders: dict[str, RoundOrder] = field(default_factory=dict)

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
        # one record for all without a model of their own: its chunks are stored and sent to the SuperLink once
        common = self.state.common_model or self.state.model
        shared = [to_record(lowered(common, order.exchange)) for order in list(orders.values())[:1]]
        for name, order in orders.items():
            self.asked[name] = sites[name]
            own = self.state.site_models.get(name)
            record = shared[0] if own is None else to_record(lowered(own, order.exchange))
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
                self.bytes_sent += sum(len(array.data) for array in record.values())
                self._orders[name] = order
            else:
                self.fail(name, "node.unreachable", self.started)

    def take(self, message_id: str, reply: Message, now: float) -> list[SiteRound]:
        """Check one reply and take it in, or note why not.

        Args:
            message_id: of the order that the reply was pulled for. It tells whose answer this is; what a reply itself
                says of that was written by whoever sent it.
            reply: what came.
            now: clock reading.

        Returns:
            The row of this site, and of others whose update turned out to be of no use now; every one is in ``rows``.
        """
        site = self.waiting.pop(message_id)
        try:
            row, update, length = self._checked(site, reply, now)
        except FedSegError as error:
            return [self.fail(site, error.code, now)]
        except Exception:  # noqa: BLE001 - whatever a site sends costs its own round only
            # names that are no text, say, cannot even be hashed
            _log.exception("an answer could not be checked")
            return [self.fail(site, "reply.unreadable", now)]
        self.rows.append(row)
        return self._drop(self.incoming.take(update, length), row)

    def settle(self) -> list[SiteRound]:
        """Fold what still waits; returns the rows of sites whose update turned out to be of no use."""
        return self._drop(self.incoming.settle())

    def fail(self, site: str, code: str, now: float) -> SiteRound:
        """Note that ``site`` gives nothing to this round."""
        row = SiteRound(round_number=self.number, site=site, code=code, answer_seconds=round(now - self.started, 3))
        self.rows.append(row)
        return row

    def restarted(self, sites: Mapping[str, Site]) -> list[str]:
        """Return awaited sites that have introduced themselves anew: a node answers in turn, so the order was lost."""
        return [name for name in self.waiting.values() if sites[name] is not self.asked[name]]

    def give_up_on(self, sites: Iterable[str]) -> list[str]:
        """Wait for ``sites`` no longer; returns the ids of their orders."""
        gone = set(sites)
        given_up = [message_id for message_id, site in self.waiting.items() if site in gone]
        self.waiting = {message_id: site for message_id, site in self.waiting.items() if site not in gone}
        return given_up

    def _drop(self, found: Mapping[str, str], latest: SiteRound | None = None) -> list[SiteRound]:
        """Turn the rows of sites in ``found`` into failures; returns these and ``latest``."""
        told = [] if latest is None or latest.site in found else [latest]
        for index, row in enumerate(self.rows):
            if row.site in found and not row.code:
                self.rows[index] = SiteRound(
                    round_number=row.round_number,
                    site=row.site,
                    code=found[row.site],
                    payload_bytes=row.payload_bytes,
                    payload_sha256=row.payload_sha256,
                    answer_seconds=row.answer_seconds,
                )
                told.append(self.rows[index])
        return told

    def _checked(self, site: str, reply: Message, now: float) -> tuple[SiteRound, SiteUpdate, float]:
        if reply.has_error():
            raise FedSegError(error_code(reply), "The node answered with an error.", "Read the site's log.")
        payload = payload_of(reply.content)
        order = self._orders[site]
        received = self.state.model_for(site)
        report, weights, extras = read_result(reply.content, received)
        check_extras(extras, self.state.model, order.task.training)
        check_result(report, weights, extras, self.state.model, self.number)
        check_report(report, self.labels)
        check_counts(report, order.task.training)
        length = update_length(weights, extras, received)
        check_length(length, received)
        self._check_new(site, reply.content, length)
        examples, steps = counts_that_weigh(report, order.task, self.asked[site].introduction.training_cases)
        update = SiteUpdate(site, weights, examples, steps, extras, received, report.loss)
        row = SiteRound(
            round_number=self.number,
            site=site,
            loss=report.loss,
            examples=examples,
            steps=steps,
            bytes_received=sum(tensor_bytes(record) for _, record in records_of(reply.content, ArrayRecord)),
            payload_bytes=payload.bytes,
            payload_sha256=payload.sha256,
            answer_seconds=round(now - self.started, 3),
            seconds=report.seconds,
            scores=enough_cases(report.scores, order.privacy.minimum_cases),
            annotated=report.annotated,
            lesion_counts=report.lesion_counts,
            usual=report.usual and told_usual(report.usual, order.privacy),
        )
        return row, update, length

    def _check_new(self, site: str, content: RecordDict, length: float) -> None:
        """Refuse tensors that this site has answered with before, unless they change nothing."""
        digest = _tensors_digest(content)
        member = self.state.members.get(site)
        if length > 0.0 and member is not None and digest in member.recent:
            raise BadInputError(
                "reply.replayed", "The tensors are those of an earlier round.", "Look at the site's trainer."
            )
        self.digests[site] = digest


def enough_cases(scores: tuple[CaseScore, ...], minimum: int) -> tuple[CaseScore, ...]:
    """Return the scores of labels that were scored on at least ``minimum`` cases; the others are not kept."""
    cases = Counter(label for _, label in {(score.case, score.label) for score in scores})
    return tuple(score for score in scores if cases[score.label] >= minimum)


def _tensors_digest(content: RecordDict) -> str:
    digest = hashlib.sha256()
    for _, record in records_of(content, ArrayRecord):
        for _, array in sorted(record.items()):
            digest.update(array.data)
    return digest.hexdigest()[:_DIGITS]
