"""A group of sites that train one model: when a round starts, when it closes, when the group ends."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from statistics import fmean

from flwr.app import Message
from flwr.serverapp import Grid

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.aggregation.batch_norm import without_sites
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.aggregation.rule import Aggregate
from FedSegCore.federation.array_files import FolderSiteStore
from FedSegCore.federation.checks import check_made
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.events import Event, EventKind, EventLog
from FedSegCore.federation.incoming import Incoming
from FedSegCore.federation.late_answers import LateAnswers
from FedSegCore.federation.membership import Membership
from FedSegCore.federation.messages import RoundOrder
from FedSegCore.federation.open_round import OpenRound
from FedSegCore.federation.own_models import (
    LEFT,
    Admitted,
    common_model,
    own_models,
    unknown,
    without_expelled,
    without_namesakes,
)
from FedSegCore.federation.round_numbers import answer_words, largest_share, mean_dice
from FedSegCore.federation.state_store import DONE, GroupState, GroupStateStore, Member, SiteRound
from FedSegCore.federation.tasks import training_task

FAILED_ROUNDS_ALLOWED = 3
"""A group in which this many rounds in a row brought no or too few usable answers ends with the model it has."""

RECENT_ANSWERS = 16
"""Answers of a site that are remembered, to know them again."""

NOTICE_AFTER_S = 5.0
"""Sites are told how many more are waited for once no other has come for so long."""

RETRY_AFTER_S = 10.0
"""Pause before a round that brought nothing is tried again: a site may be starting its trainer anew."""

NOT_NOW = frozenset({"site.paused", "policy.hours"})
"""Why a site that is well gives nothing now: its people paused it, or it has worked enough for today."""

ASK_LATER_S = 600.0
"""Pause before sites that may not train now are asked again."""

_log = logging.getLogger(__name__)

Participation = Callable[[str, int], bool]
"""(site, round) → whether the site is asked; for experiments with sites that drop out."""


def always(site: str, round_number: int) -> bool:  # noqa: ARG001 - the signature of Participation
    """Ask every site in every round."""
    return True


@dataclass
class Group:
    """One group of a running federation; steps without ever blocking.

    Args:
        state: where it stands.
        config: the federation.
        store: where every closed round is written.
        members: all sites of the run.
        grid: Flower's grid.
        log: told what happens.
        clock: seconds, monotonic.
        participation: who is asked in which round.
        admitted: who is admitted now.
    """

    state: GroupState
    config: FederationConfig
    store: GroupStateStore
    members: Membership
    grid: Grid
    log: EventLog
    clock: Callable[[], float]
    participation: Participation = always
    admitted: Admitted = unknown
    round: OpenRound | None = None
    _wait_until: float = 0.0
    _away_until: float = 0.0
    _not_before: float = 0.0
    _missing_told: int = 0
    _notice_at: float = 0.0
    _failed_in_row: int = 0
    _left: set[str] = field(default_factory=set)
    _fresh: bool = field(default=True)

    def __post_init__(self) -> None:
        self._rule = build_rule(self.config.aggregation)
        self._late = LateAnswers(self.grid, self.clock)
        self._wait_until = self.clock() + self.config.join_deadline_s
        self._away_until = self.clock() + self.config.return_deadline_s
        # a state that was done may have been given more rounds
        done = self.state.round_number >= self.config.rounds
        self.state = replace(self.state, ended=DONE if done else "")

    @property
    def ended(self) -> bool:
        """Whether the group asks for nothing more."""
        return bool(self.state.ended)

    @property
    def fraction(self) -> float:
        """Share of the planned rounds that is done, in [0, 1]."""
        if self.ended:
            return 1.0
        part = 0.0
        if self.round is not None:
            part = len(self.round.rows) / max(1, len(self.round.rows) + len(self.round.waiting))
        return min(1.0, (self.state.round_number + part) / self.config.rounds)

    def step(self) -> bool:
        """Start or close a round if it is time; returns whether anything happened."""
        if self.ended:
            return False
        return self._try_start() if self.round is None else self._try_close(self.round)

    def pull(self) -> bool:
        """Take in the answers that are there, one at a time; returns whether there were any."""
        self._late.fetch()
        if self.round is None:
            return False
        taken = False
        for message_id in list(self.round.waiting):
            for reply in self.grid.pull_messages([message_id]):
                self._take(self.round, message_id, reply)
                taken = True
                # else it would stay in memory until the next one is there
                del reply
        return taken

    def _mine(self) -> list[str]:
        group_of = self.config.group_of
        return [
            name
            for name, site in sorted(self.members.sites.items())
            if group_of(site.introduction.modality) == self.state.group
        ]

    def _try_start(self) -> bool:
        here = self.members.online(self._mine())
        if not here:
            self._not_before = 0.0  # whoever comes back after that may train at once
        if self.clock() < self._not_before:
            return False
        missing = max(self.config.min_sites, self.config.min_answers) - len(here)
        in_time = self.clock() < self._wait_until
        if (missing > 0 and in_time) or (self._fresh and self.members.asking and in_time):
            return self._tell_waiting(missing)
        if len(here) < self.config.min_answers:
            return self._wait_for_return(missing)
        self._missing_told = 0
        self._fresh = False
        self._start(self._chosen(here))
        return True

    def _wait_for_return(self, missing: int) -> bool:
        if self.clock() >= self._away_until:
            self._end("group.no-sites", "no site is connected, or too few")
            return True
        # the first one back waits for the others, as at the beginning
        self._wait_until = self.clock() + self.config.join_deadline_s
        return self._tell_waiting(missing)

    def _tell_waiting(self, missing: int) -> bool:
        if missing > 0 and missing == self._missing_told and self.clock() >= self._notice_at:
            self._notice_at = float("inf")
            self.members.tell_waiting(self._mine(), missing)
        if missing <= 0 or missing == self._missing_told:
            return False
        self._missing_told = missing
        self._notice_at = self.clock() + NOTICE_AFTER_S
        kind = "" if self.state.group == "all" else f" {self.state.group}"
        self._tell("waiting", f"waiting for {missing} more{kind} site{'s' if missing > 1 else ''}", missing=missing)
        return True

    def _chosen(self, here: list[str]) -> list[str]:
        number = self.state.round_number + 1
        taking_part = [name for name in here if self.participation(name, number)]
        rested = [name for name in taking_part if self.members.sites[name].resting == 0]
        for name in here:
            self.members.sites[name].resting = max(0, self.members.sites[name].resting - 1)
        return rested if len(rested) >= self.config.min_answers else taking_part

    def _start(self, names: list[str]) -> None:
        now = self.clock()
        admitted = self.admitted()
        nodes = {name: self.members.sites[name].node_id for name in names}
        self.state = without_namesakes(without_expelled(self.state, admitted), admitted, nodes)
        self._updates = FolderSiteStore(self.store.working_folder(self.state.group))
        self._rule.begin(self.state.model, self.state.rule_state, self._updates)
        incoming = Incoming(
            self._rule, self.store.working_folder(self.state.group), self.config.aggregation.extreme_update
        )
        self.round = OpenRound(
            self.state, incoming, now, now + self.config.round_deadline_s, self.config.contract.names
        )
        self._tell(
            "round-started",
            f"asked {len(names)} site{'s' if len(names) != 1 else ''}",
            sites=names,
            deadline_s=self.config.round_deadline_s,
        )
        self.round.ask(self.grid, self.members.sites, {name: self._order(name) for name in names})
        for row in self.round.rows:
            self._tell_failed(row)

    def _order(self, name: str) -> RoundOrder:
        return RoundOrder(
            group=self.state.group,
            round_number=self.state.round_number + 1,
            rounds=self.config.rounds,
            seed=self.config.seed,
            task=training_task(
                self.config, self.members.sites[name].introduction.modality, self._lesion_counts_for(name)
            ),
            privacy=self.config.privacy,
            exchange=self.config.exchange,
            usual=name not in self.state.members or self.state.members[name].usual is None,
            trained_values=tuple(sorted({value for one in self.state.members.values() for value in one.annotated})),
        )

    def _lesion_counts_for(self, name: str) -> tuple[int, ...]:
        """Return the lesion sizes of all sites; none for a site that has not told its own and shall do so first."""
        told = {site: member.lesion_counts for site, member in self.state.members.items() if member.lesion_counts}
        return tuple(map(sum, zip_longest(*told.values(), fillvalue=0))) if name in told else ()

    def _take(self, current: OpenRound, message_id: str, reply: Message) -> None:
        self.members.sites[current.waiting[message_id]].came_in_time()
        for row in current.take(message_id, reply, self.clock()):
            if row.code == LEFT:
                self._left.add(row.site)
            if row.code:
                self._tell_failed(row)
            else:
                self._tell_answered(row)

    def _tell_answered(self, row: SiteRound) -> None:
        self._tell(
            "site-answered",
            f"{row.site} answered ({answer_words(row)})",
            site=row.site,
            loss=row.loss,
            examples=row.examples,
            steps=row.steps,
            bytes=row.bytes_received,
            payload_bytes=row.payload_bytes,
            seconds=row.answer_seconds,
            scores=mean_dice(row.scores),
        )

    def _try_close(self, current: OpenRound) -> bool:
        if self.clock() >= current.deadline:
            self._fail_all(current, list(current.waiting.values()), "site.late")
        self._fail_all(current, current.restarted(self.members.sites), "node.restarted")
        if current.waiting:
            return False
        for row in current.settle():
            self._tell_failed(row)
        self.round = None
        self._wait_until = self.clock() + self.config.join_deadline_s
        if len(current.answered) >= self.config.min_answers or not current.rows:
            made = self._made()
            if made is not None:
                self._close(current, made)
        else:
            self._failed(current)
        self._updates.remove()
        self.members.update(now_at_once=True)
        return True

    def _fail_all(self, current: OpenRound, names: list[str], code: str) -> None:
        self._late.expect(current.give_up_on(names))
        for name in names:
            if code == "site.late":
                self.members.sites[name].came_late()
            self._tell_failed(current.fail(name, code, self.clock()))

    def _made(self) -> Aggregate | None:
        """Return what the rule makes of the round; None, and the round has failed, where it can make nothing."""
        try:
            made = self._rule.finish()
            check_made(made)
            return made
        except FedSegError:
            raise
        except Exception as error:  # noqa: BLE001 - one group's rule must not end the others
            _log.exception("the answers of a round could not be combined")
            why = str(error) if isinstance(error, ValueError) else type(error).__name__
            self._fail(f"the answers could not be combined ({why})")
            return None

    def _close(self, current: OpenRound, made: Aggregate) -> None:
        self._failed_in_row = 0
        number = current.number
        state = GroupState(
            group=self.state.group,
            round_number=number,
            model=made.group_model,
            rule_state=without_sites(made.rule_state, self._left),
            common_model=common_model(made, self.state),
            members=self._members_after(current),
            answered=current.answered,
            ended=DONE if number >= self.config.rounds else "",
        )
        self.state = self.store.save(state, own_models(made, self.state, self._left), current.rows)
        self._left.clear()
        self._away_until = self.clock() + self.config.return_deadline_s
        losses = [row.loss for row in current.rows if row.loss is not None]
        self._tell(
            "round-closed",
            f"closed with {len(current.answered)} of {len(current.rows)} sites",
            number=number,
            answered=list(current.answered),
            failed=[row.site for row in current.rows if row.code],
            seconds=round(self.clock() - current.started, 3),
            bytes_sent=current.bytes_sent,
            loss=fmean(losses) if losses else None,
            largest_share=largest_share(current.rows),
            scores=mean_dice(tuple(score for row in current.rows for score in row.scores)),
        )
        if self.ended:
            self._tell("group-finished", "all rounds done", number=number)

    def _members_after(self, current: OpenRound) -> Mapping[str, Member]:
        members = dict(self.state.members)
        for row in current.rows:
            site = current.asked[row.site]
            known = {"introduction": site.introduction, "node_id": site.node_id}
            before = members.get(row.site, Member(introduction=site.introduction)).model_copy(update=known)
            if row.code:
                members[row.site] = before
                continue
            recent = (*before.recent, current.digests[row.site])[-RECENT_ANSWERS:]
            told = {
                "rounds_answered": before.rounds_answered + 1,
                "recent": recent,
                "lesion_counts": row.lesion_counts or before.lesion_counts,
                "usual": before.usual if row.usual is None else row.usual,
                "annotated": tuple(sorted({*before.annotated, *row.annotated})),
            }
            members[row.site] = before.model_copy(update=told)
        return members

    def _failed(self, current: OpenRound) -> None:
        codes, answered = {row.code for row in current.rows if row.code}, len(current.answered)
        if codes and codes <= NOT_NOW and self.clock() < self._away_until:
            self._not_before = self.clock() + ASK_LATER_S
            self._tell(
                "round-failed",
                f"{'too few sites' if answered else 'no site'} may train now; they are asked again later",
            )
            return
        needed = f"only {answered} of {self.config.min_answers} needed sites" if answered else "no site"
        self._fail(f"{needed} gave a usable answer")

    def _fail(self, why: str) -> None:
        self._failed_in_row += 1
        self._not_before = self.clock() + RETRY_AFTER_S
        self._tell("round-failed", why)
        if self._failed_in_row >= FAILED_ROUNDS_ALLOWED:
            self._end("group.all-failed", f"no usable answer, or too few, in {self._failed_in_row} tries")

    def _end(self, code: str, why: str) -> None:
        self.state = replace(self.state, ended=code)
        done = self.state.round_number
        self._tell("group-finished", f"ended after {done} rounds: {why}", number=done, code=code)

    def _tell_failed(self, row: SiteRound) -> None:
        self._tell(
            "site-failed",
            f"{row.site} gave nothing ({row.code})",
            site=row.site,
            code=row.code,
            seconds=row.answer_seconds,
        )

    def _tell(
        self, kind: EventKind, what: str, *, number: int | None = None, site: str = "", code: str = "", **data: object
    ) -> None:
        shown = number if number is not None else min(self.state.round_number + 1, self.config.rounds)
        message = f"{self.state.group}, round {shown} of {self.config.rounds}: {what}."
        self.log.emit(Event(kind, message, self.state.group, shown, self.config.rounds, site, code, data))
