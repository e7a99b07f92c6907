"""The entries of a site's journal in words, for the command line and the module."""

from FedSegCore.federation.site.journal_entries import (
    BundleApproved,
    CaseAdded,
    CaseRemoved,
    CohortRead,
    ConsentGiven,
    ConsentRevoked,
    ControlChanged,
    Enrolled,
    Entry,
    GinChosen,
    GinUsed,
    Healed,
    Introduced,
    InvitationAccepted,
    Left,
    OrderReceived,
    PolicyChanged,
    Refused,
    ReleaseReceived,
    ReleaseUsed,
    UsualTold,
)

_SHOWN_DIGITS = 12

_REFUSALS = {
    "gate.too-few-cases": "too few patients to answer",
    "gate.norm": "the update was too long",
    "gate.not-finite": "the result held values that are not numbers",
    "gate.names": "the result held other tensors than the received model",
    "gate.shape": "a tensor had another shape than the received one",
    "gate.dtype": "a tensor had another type than the received one",
    "gate.extras": "the result held extra tensors that were not asked for",
    "gate.counters": "a tensor that is no weight was changed",
    "gate.counts": "a count or label was impossible",
    "gate.message-size": "the answer was too large",
    "gate.privacy-spent": "the privacy budget is spent, or rounds left without noise before",
    "policy.epochs": "the server asked for too many epochs",
    "policy.steps": "the server asked for too many steps",
    "policy.batch-size": "the server asked for too large batches",
    "policy.patch-size": "the server asked for too large patches",
    "policy.rounds": "the server asked for too many rounds",
    "policy.message-size": "the server sent a model that is too large",
    "policy.spacing": "the server asked for too small voxels",
    "policy.hours": "servers have had the hours they may have",
    "policy.disk": "what servers make grow here fills the room it may have",
    "site.bundle-refused": "an app bundle that is not approved was refused",
    "cancelled": "the round was cancelled",
    "site.paused": "the site is paused",
    "site.left": "the site has left the federation",
    "cohort.none": "no case has consent to be trained on",
}

LEFT = frozenset({"left", "introduced", "usual-told", "refused"})
"""Kinds of entries that say what left the computer, or would have."""

_CONTROL = {
    "paused": "the site was paused",
    "resumed": "the site goes on",
    "leaving": "the site left the federation",
    "forgotten": "everything of the federation but this journal was deleted",
}


def entry_words(entry: Entry) -> tuple[str, str]:
    """Return what happened, and its details."""
    match entry:
        case Enrolled() | InvitationAccepted():
            return _joining_words(entry)
        case ControlChanged() | PolicyChanged():
            return _own_words(entry)
        case CohortRead():
            cases = f"{entry.training_cases} to train on, {entry.validation_cases} to score on"
            return "cohort read", f"{entry.modality}, {cases}, {entry.set_aside} set aside"
        case Introduced() | OrderReceived() | Left() | UsualTold() | Refused():
            return _exchange_words(entry)
        case ReleaseUsed() | ReleaseReceived():
            return _release_words(entry)
        case GinChosen() | GinUsed():
            return _gin_words(entry)
        case BundleApproved():
            what = "is answered from now on" if entry.approved else "is not answered any more"
            return "approval", f"the app bundle {_short(entry.sha256)} {what}"
        case CaseAdded() | CaseRemoved() | ConsentGiven() | ConsentRevoked():
            return entry.kind.replace("-", " "), f"case {entry.case}"
        case Healed():
            return "healed", f"{entry.bytes} bytes of an entry that a crash cut off stand before this line"


def _joining_words(entry: Enrolled | InvitationAccepted) -> tuple[str, str]:
    if isinstance(entry, Enrolled):
        return "enrolled", f"key {_short(entry.key_sha256)}, authority {_short(entry.authority_sha256)}"
    compared = "compared with what it told" if entry.compared else "not compared with what it told"
    keys = f"{_short(entry.invitation_sha256)}, coordinator's key {_short(entry.coordinator_key_sha256)}"
    return "invitation accepted", f"{keys}, {compared}"


def _own_words(entry: ControlChanged | PolicyChanged) -> tuple[str, str]:
    if isinstance(entry, ControlChanged):
        return "control", _CONTROL[entry.what]
    policy = f"policy {_short(entry.policy_sha256)}"
    return "policy changed", f"{policy}: nothing leaves with fewer than {entry.minimum_cases} patients"


def _exchange_words(entry: Introduced | OrderReceived | Left | UsualTold | Refused) -> tuple[str, str]:
    match entry:
        case Introduced():
            cases = f"told {entry.training_cases} and {entry.validation_cases} cases"
            return "introduced", f"{cases}; {entry.bytes} bytes, SHA-256 {_short(entry.sha256)}"
        case OrderReceived():
            work = f"epochs: {entry.epochs}" if entry.steps is None else f"steps: {entry.steps}"
            asked = f"round {entry.round_number} of {entry.rounds}: {work}, batch size: {entry.batch_size}"
            return "order received", f"{asked}; a model of {entry.bytes} bytes"
        case Left():
            return "left", _left_words(entry)
        case UsualTold():
            look = " and of the images' look" if entry.look else ""
            what = f"mean and spread of {entry.volumes} structures' volumes{look}"
            return "usual told", f"round {entry.round_number}: {what}, over {entry.fewest_patients} patients or more"
        case Refused():
            return "refused", _refusal_words(entry)


def _left_words(entry: Left) -> str:
    words = [
        f"round {entry.round_number}: {entry.tensors} tensors, {entry.bytes} bytes, SHA-256 {_short(entry.sha256)}",
        "scores held back" if entry.suppressed else f"{entry.scores} scores",
        f"update {entry.norm:.3g} long{', clipped' if entry.clipped else ''}",
    ]
    if entry.epsilon is not None:
        words.append(f"ε {entry.epsilon:.2f} so far for δ {entry.delta:g}")
    elif entry.noise_multiplier is not None:
        words.append("with noise, but ε has no bound: rounds left without noise before")
    return "; ".join(words)


def _release_words(entry: ReleaseUsed | ReleaseReceived) -> tuple[str, str]:
    weights = f"weights {_short(entry.weights_sha256)}"
    if isinstance(entry, ReleaseReceived):
        return "release received", f"{weights}, {entry.bytes} bytes"
    return "release used", f"{entry.modality}, {weights}"


def _gin_words(entry: GinChosen | GinUsed) -> tuple[str, str]:
    if isinstance(entry, GinUsed):
        whose = "the site's own settings" if entry.own else "the federation's settings: it does not let sites choose"
        return "GIN used", f"round {entry.round_number}: {whose}"
    if not entry.own:
        return "GIN chosen", "the federation's settings again"
    kernels = ", ".join(map(str, entry.kernel_sizes))
    whose = "one network a batch" if entry.per_batch else "one network an image"
    return (
        "GIN chosen",
        f"α {entry.alpha_low:g} to {entry.alpha_high:g}, {entry.layers} layers, kernels {kernels}, {whose}",
    )


def _refusal_words(entry: Refused) -> str:
    words = [entry.code, _REFUSALS.get(entry.code, "the site's logs say why")]
    if entry.measured is not None and entry.allowed is not None:
        words.append(f"{entry.measured:g}, the policy's bound is {entry.allowed:g}")
    if entry.round_number is not None:
        words.append(f"round {entry.round_number}")
    return "; ".join(words)


def _short(digest: str) -> str:
    return digest[:_SHOWN_DIGITS] + "…"
