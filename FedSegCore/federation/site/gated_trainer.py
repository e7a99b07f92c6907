"""The trainer as its socket shows it: nothing is trained beyond the site's policy, nothing leaves but by the gate.

It stands in the long-lived trainer process, the only one that has the images and the result: whatever reaches a
client app's process has passed the gate and is in the journal.
"""

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.checks import check_limits
from FedSegCore.federation.messages import write_result
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.private_files import keep_secret
from FedSegCore.federation.remainder import Remainder, decoded
from FedSegCore.federation.site.accountant import running_epsilon
from FedSegCore.federation.site.budget import check_hours, check_room
from FedSegCore.federation.site.cohort_file import read_cohort_file
from FedSegCore.federation.site.cohort_trainer import CohortTrainer
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.gate import GateFacts, Outgoing, check_leaving, pass_gate, require_patients
from FedSegCore.federation.site.journal_entries import GinUsed, Left, OrderReceived, Refused, UsualTold
from FedSegCore.federation.site.local_gin import read_local_gin, with_local_gin
from FedSegCore.federation.site.policy import PolicyError, SitePolicy
from FedSegCore.federation.site.round_records import keep_round
from FedSegCore.federation.site.usual_memory import UsualMemory
from FedSegCore.federation.tensors import byte_count
from FedSegCore.federation.trainer_port import JOURNALLED_BY_TRAINER, SiteDescription
from FedSegCore.inference.weights import check_fits
from FedSegCore.learning.cohort import PreparedCase
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.learning.results import FEDGS_PREFIX, Arrays, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.networks.config import NetworkConfig

_PSEUDONYM_DIGITS = 12
_TELL_AGAIN_S = 3600.0

Given = TypeVar("Given")


class GatedTrainer:
    """A site's trainer behind its policy, its gate and its journal.

    Args:
        folder: the site.
        trainer: what trains.
    """

    def __init__(self, folder: SiteFolder, trainer: CohortTrainer) -> None:
        self._folder = folder
        self._trainer = trainer
        self._told_full = -_TELL_AGAIN_S
        self._known_network: NetworkConfig | None = None
        self._remainder = Remainder(folder.training / "remainder")
        self._usual_memory = UsualMemory(folder)

    def describe(self) -> SiteDescription:
        """Return what the site tells of its cohort: 0 instead of a number of scored cases below the minimum.

        Raises:
            PolicyError: ``gate.too-few-cases``.
            BadInputError: the cohort file or the policy cannot be used.
        """
        rules = self._policy_with_room(None).privacy
        told = self._trainer.describe()
        cohort = read_cohort_file(self._folder.cohort)
        self._journalling(lambda: require_patients(rules, len(cohort.patients("train"))), None)
        enough = len(cohort.patients("validation")) >= rules.minimum_cases
        return told if enough else replace(told, validation_cases=0)

    def train_round(
        self, task: TrainingTask, weights: Arrays, request: RoundRequest, progress: Progress
    ) -> RoundResult:
        """Train a round and return what may leave of it, once the journal says so.

        Raises:
            FedSegError: ``policy.*`` for the round or for all work, ``gate.*``, ``journal.*``; what the trainer raises.
        """
        self._policy_with_room(request.round_number)
        self._folder.journal.append(_order(task, weights, request))
        return self._journalling(lambda: self._gated(task, weights, request, progress), request.round_number)

    def _policy_with_room(self, round_number: int | None) -> SitePolicy:
        """Return the policy if there is room to write of a server's wishes; that there is none is told once an hour."""
        policy = self._journalling(self._folder.policy, round_number)
        if time.monotonic() - self._told_full < _TELL_AGAIN_S:
            check_room(self._folder, policy.budget)
            return policy
        try:
            self._journalling(lambda: check_room(self._folder, policy.budget), round_number)
        except PolicyError:
            self._told_full = time.monotonic()
            raise
        return policy

    def _journalling(self, work: Callable[[], Given], round_number: int | None) -> Given:
        try:
            return work()
        except FedSegError as error:
            if error.code.startswith(JOURNALLED_BY_TRAINER):
                bounds = (error.measured, error.allowed) if isinstance(error, PolicyError) else (None, None)
                measured, allowed = (_finite(value) for value in bounds)
                self._folder.journal.append(
                    Refused(code=error.code, round_number=round_number, measured=measured, allowed=allowed)
                )
            raise

    def _gated(self, task: TrainingTask, weights: Arrays, request: RoundRequest, progress: Progress) -> RoundResult:
        policy = self._folder.policy()
        check_limits(task, weights, request, policy.limits)
        check_hours(self._folder, policy.budget)
        if task.network != self._known_network:
            # before it is built: what a server asks for may be of any size
            check_fits(task.network, weights)
            self._known_network = task.network
        task = self._with_own_gin(task, request.round_number)
        rules = policy.privacy.stricter(request.privacy)
        epsilon = self._epsilon(rules)
        result = self._trainer.train_round(task, weights, request, progress)
        keep_round(self._folder, request, result)
        facts = self._facts(policy, task)
        out = self._steady(
            pass_gate(rules, weights, self._remainder.join(weights, result, request), facts), rules, task, request
        )
        sent = self._remainder.leave(weights, out.result, request)
        check_leaving(rules, weights, decoded(sent, weights), facts)
        out = replace(out, result=sent)
        self._folder.journal.append(_left(out, rules, request.round_number, epsilon))
        return sent

    def _steady(self, out: Outgoing, rules: PrivacyRules, task: TrainingTask, request: RoundRequest) -> Outgoing:
        """Put what was told before of nearly the same patients in the place of what is usual now."""
        usual = out.result.usual
        if usual is None or not (usual.look or usual.volumes):
            return out
        told = self._usual_memory.steady(usual, self._trainer.measured(task), rules.minimum_cases, task)
        if subjects := [*told.volumes.values(), *([] if told.look is None else [told.look])]:
            self._folder.journal.append(
                UsualTold(
                    round_number=request.round_number,
                    volumes=len(told.volumes),
                    look=told.look is not None,
                    fewest_patients=min(one.patients for one in subjects),
                )
            )
        return replace(out, result=replace(out.result, usual=told))

    def _with_own_gin(self, task: TrainingTask, round_number: int) -> TrainingTask:
        own = read_local_gin(self._folder)
        if own is None:
            return task
        chosen = with_local_gin(task, own)
        self._folder.journal.append(GinUsed(round_number=round_number, own=chosen is not task))
        return chosen

    def _epsilon(self, rules: PrivacyRules) -> float | None:
        """Return ε with the round to come, before any time is spent on training it; None without noise in it.

        Infinite where a round left without noise before: these patients' updates were not protected then.
        """
        if rules.noise_multiplier is None:
            return None
        lines = self._folder.journal.lines()
        before = [line.entry.noise_multiplier for line in lines if isinstance(line.entry, Left)]
        epsilon = running_epsilon([*before, rules.noise_multiplier], rules.delta)
        if rules.epsilon_limit is not None and not epsilon <= rules.epsilon_limit:
            raise _spent(epsilon, rules.epsilon_limit)
        return epsilon

    def _facts(self, policy: SitePolicy, task: TrainingTask) -> GateFacts:
        cohort = self._trainer.cohort_for(task)
        secret = keep_secret(self._folder.pseudonym_secret).encode("ascii")
        return GateFacts(
            training_patients=_patients(cohort.training),
            scored_patients=_patients(cohort.validation),
            extras=frozenset() if task.training.fedgs is None else frozenset({FEDGS_PREFIX.rstrip("/")}),
            labels=len(task.contract.labels),
            max_bytes=policy.limits.message_bytes,
            pseudonym=lambda case: pseudonym(secret, case),
            generator=np.random.default_rng(),
        )


def _spent(epsilon: float, limit: float) -> PolicyError:
    if math.isinf(epsilon):
        return PolicyError(
            "gate.privacy-spent",
            "Updates of this site left without noise before, so ε has no bound.",
            "Take epsilon_limit out of policy.json to add noise from now on without a promise of ε.",
            epsilon,
            limit,
        )
    return PolicyError(
        "gate.privacy-spent",
        f"Another round would raise ε to {epsilon:.2f}.",
        "The site has given what its policy allows; it leaves the federation.",
        epsilon,
        limit,
    )


def pseudonym(secret: bytes, case: str) -> str:
    """Return what the server sees instead of ``case``: the same in every round, of use to this site only."""
    return "case-" + hmac.new(secret, case.encode("utf-8"), hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]


def _patients(cases: Iterable[PreparedCase]) -> int:
    return len({case.patient for case in cases})


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _order(task: TrainingTask, weights: Arrays, request: RoundRequest) -> OrderReceived:
    return OrderReceived(
        round_number=request.round_number,
        rounds=request.rounds,
        modality=task.preprocessing.modality,
        tensors=len(weights),
        bytes=byte_count(weights),
        steps=task.training.steps_per_round,
        epochs=task.training.epochs,
        batch_size=task.training.batch_size,
    )


def _left(out: Outgoing, rules: PrivacyRules, round_number: int, epsilon: float | None) -> Left:
    # the very content that the client app will send
    payload = payload_of(write_result(out.result, round_number))
    noisy = rules.noise_multiplier is not None
    return Left(
        round_number=round_number,
        tensors=payload.tensors,
        bytes=payload.bytes,
        sha256=payload.sha256,
        examples=out.result.num_examples,
        scores=len(out.result.scores),
        suppressed=out.suppressed,
        norm=out.norm,
        clipped=out.clipped,
        noise_multiplier=rules.noise_multiplier,
        delta=rules.delta if noisy else None,
        epsilon=_finite(epsilon),
    )
