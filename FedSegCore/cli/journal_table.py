"""A site's journal in words, one row an entry."""

from collections.abc import Iterable

from rich.table import Table

from FedSegCore.federation.site.journal_entries import (
    CohortRead,
    Enrolled,
    Entry,
    Healed,
    Introduced,
    Left,
    Line,
    OrderReceived,
    Refused,
    ReleaseUsed,
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
    "gate.privacy-spent": "the privacy budget is spent",
    "policy.epochs": "the server asked for too many epochs",
    "policy.steps": "the server asked for too many steps",
    "policy.batch-size": "the server asked for too large batches",
    "policy.patch-size": "the server asked for too large patches",
    "policy.rounds": "the server asked for too many rounds",
    "policy.message-size": "the server sent a model that is too large",
    "site.bundle-refused": "an app bundle that is not approved was refused",
    "cancelled": "the round was cancelled",
}


def journal_table(lines: Iterable[Line]) -> Table:
    """Return a table of ``lines`` for people."""
    table = Table("", "time (UTC)", "what", "details", box=None, pad_edge=False)
    for line in lines:
        what, details = _words(line.entry)
        table.add_row(str(line.number), line.time.replace("T", " ").rstrip("Z"), what, details)
    return table


def _words(entry: Entry) -> tuple[str, str]:
    match entry:
        case Enrolled():
            return "enrolled", f"key {_short(entry.key_sha256)}, authority {_short(entry.authority_sha256)}"
        case CohortRead():
            cases = f"{entry.training_cases} to train on, {entry.validation_cases} to score on"
            return "cohort read", f"{entry.modality}, {cases}, {entry.set_aside} set aside"
        case Introduced():
            cases = f"told {entry.training_cases} and {entry.validation_cases} cases"
            return "introduced", f"{cases}; {entry.bytes} bytes, SHA-256 {_short(entry.sha256)}"
        case OrderReceived():
            work = f"epochs: {entry.epochs}" if entry.steps is None else f"steps: {entry.steps}"
            asked = f"round {entry.round_number} of {entry.rounds}: {work}, batch size: {entry.batch_size}"
            return "order received", f"{asked}; a model of {entry.bytes} bytes"
        case Left():
            return "left", _left_words(entry)
        case Refused():
            return "refused", _refusal_words(entry)
        case ReleaseUsed():
            return "release used", f"{entry.modality}, weights {_short(entry.weights_sha256)}"
        case Healed():
            return "healed", f"{entry.bytes} bytes of an entry that a crash cut off stand before this line"


def _left_words(entry: Left) -> str:
    words = [
        f"round {entry.round_number}: {entry.tensors} tensors, {entry.bytes} bytes, SHA-256 {_short(entry.sha256)}",
        "scores held back" if entry.suppressed else f"{entry.scores} scores",
        f"update {entry.norm:.3g} long{', clipped' if entry.clipped else ''}",
    ]
    if entry.epsilon is not None:
        words.append(f"ε {entry.epsilon:.2f} so far for δ {entry.delta:g}")
    return "; ".join(words)


def _refusal_words(entry: Refused) -> str:
    words = [entry.code, _REFUSALS.get(entry.code, "the site's logs say why")]
    if entry.measured is not None and entry.allowed is not None:
        words.append(f"{entry.measured:g}, the policy's bound is {entry.allowed:g}")
    if entry.round_number is not None:
        words.append(f"round {entry.round_number}")
    return "; ".join(words)


def _short(digest: str) -> str:
    return digest[:_SHOWN_DIGITS] + "…"
