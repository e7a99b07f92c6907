"""What the Federation tab says, in plain words."""

import calendar
import html
import time
from typing import Any

from slicer.i18n import tr as _

from .Errors import UserError
from .FederationTypes import SiteFacts
from .JsonRpcClient import Progress

MOST_NAMED = 5
"""Cases of a folder that are named with the reason why they were left out."""


def stateTitle(facts: SiteFacts) -> str:
    """Return the state's name."""
    return {
        "not-a-member": _("Not a member"),
        "request-sent": _("Not yet admitted"),
        "admitted": _("Member, not connected"),
        "connected": _("Connected"),
        "waiting": _("Waiting for other sites"),
        "training": _("Training"),
        "paused": _("Paused"),
        "finished": _("Finished"),
        "left": _("Left"),
        "problem": _("Something needs a look"),
    }.get(facts.state, facts.state)


def stateWords(facts: SiteFacts, seenAt: float = 0.0, unknown: UserError | None = None) -> str:
    """Return how the site stands and what to do, as rich text.

    Args:
        facts: how it stands, or stood.
        seenAt: when it did, seconds since the epoch.
        unknown: why that is not known any more; None while it is.
    """
    if unknown is None:
        return _standing(facts)
    since = time.strftime("%H:%M", time.localtime(seenAt))
    title = _("How the site stands is not known since {time}").format(time=since)
    before = _("This is how it stood then:")
    return "<br>".join([f"<b>{title}</b>", html.escape(f"{unknown.cause} {unknown.remedy}"), before, _standing(facts)])


def _standing(facts: SiteFacts) -> str:
    member = facts.member
    title = stateTitle(facts)
    if member is not None:
        who = _("{site} in {federation}") if member["federation"] else _("{site}")
        title = title + ": " + who.format(site=member["name"], federation=member["federation"])
    lines = [f"<b>{html.escape(title)}</b>", html.escape(facts.words)]
    if facts.remedy:
        lines.append(html.escape(facts.remedy))
    if facts.code:
        lines.append(f"<small>{html.escape(facts.code)}</small>")
    if facts.setAside:
        lines.append(_("Cases that could not be used in the last round: {count}.").format(count=facts.setAside))
    if facts.lastMessage is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.lastMessage))
        lines.append(_("Last message from the coordinator: {when}.").format(when=when))
    return "<br>".join(lines)


def errorWords(error: UserError) -> str:
    """Return an error as rich text."""
    lines = (f"<b>{html.escape(error.cause)}</b>", html.escape(error.remedy), f"<small>{error.code}</small>")
    return "<br>".join(lines)


def invitationWords(told: dict[str, Any]) -> str:
    """Return what an invitation asks for, and with which fingerprint it must be compared, as rich text."""
    lines = [
        _("<b>{federation}</b>, at {address}").format(
            federation=html.escape(told["federation"]), address=html.escape(told["addresses"][0])
        ),
        _("The coordinator's fingerprint, to be compared by telephone:"),
        fingerprintWords(told["fingerprint"]),
        *(html.escape(words) for words in told["words"]),
    ]
    return "<br>".join(lines)


def fingerprintWords(fingerprint: str) -> str:
    """Return a fingerprint large enough to be read out, as rich text."""
    return f'<span style="font-size:large; font-family:monospace; font-weight:bold">{html.escape(fingerprint)}</span>'


def layerName(layer: str) -> str:
    """Return what people call a layer of the check."""
    return {
        "proxy": _("Proxy"),
        "name": _("Address"),
        "port": _("Port"),
        "encryption": _("Encryption"),
        "clock": _("Clock"),
        "authority": _("Authority"),
        "certificate": _("Certificate"),
        "admission": _("Admission"),
        "flower": _("Flower"),
        "app": _("FedSegSlicer"),
        "policy": _("Policy"),
        "budget": _("Hours"),
        "journal": _("Journal"),
        "disk": _("Disk"),
        "memory": _("Memory"),
        "device": _("Device"),
        "cohort": _("Cases"),
        "last message": _("Last message"),
    }.get(layer, layer)


def checkMark(finding: dict[str, Any]) -> str:
    """Return how a layer is, in a sign that needs no color."""
    if finding["ok"]:
        return "✓"
    return "✗" if finding["tried"] else "–"


def findingsWords(told: dict[str, Any]) -> str:
    """Return what was found in a case, as rich text."""
    lines = []
    for finding in told["findings"]:
        keepsOut = finding["code"] in told["refused"]
        sign = "✗" if keepsOut else "!"
        lines.append(f"{sign} <b>{html.escape(finding['words'])}</b> {html.escape(finding['remedy'])}")
    if not told["refused"]:
        lines.append("✓ " + _("This case can be added."))
    return "<br>".join(lines)


def consentWords(case: dict[str, Any]) -> str:
    """Return who consented to a case and when."""
    consent = case["consent"]
    if consent is None:
        return _("none yet: not used")
    if consent["revoked"] is not None:
        return _("taken back {day}: not used").format(day=consent["revoked"])
    return _("{by}, {day}").format(by=consent["by"], day=consent["given"])


def cohortWords(told: dict[str, Any]) -> str:
    """Return how many cases are used."""
    words = _("In use: {trained} to train on, {scored} to score on. In the site's store: {total}.")
    return words.format(trained=told["trained"], scored=told["scored"], total=len(told["cases"]))


def journalWords(told: dict[str, Any]) -> str:
    """Return whether the journal is whole."""
    verified = told["verified"]
    if verified["whole"] and not verified["entries"]:
        return _("There is no journal here any more: it was moved away, or deleted.")
    if verified["whole"]:
        words = [_("The journal is whole: {count} entries.").format(count=verified["entries"])]
        if verified["unfinished"]:
            words.append(_("The last one was cut off by a crash; the next one will say so."))
        if told["total"] > len(told["rows"]):
            more = _("The newest {shown} of {total} are shown.")
            words.append(more.format(shown=len(told["rows"]), total=told["total"]))
        return " ".join(words)
    return _("The journal was changed: {file}, line {line}: {reason}. Keep a copy, and tell whoever must know.").format(
        file=verified["file"] or _("the journal"), line=verified["line"], reason=verified["reason"]
    )


def nothingLeft(told: dict[str, Any], onlyLeft: bool) -> bool:
    """Return whether a journal proves that nothing left: it is whole, complete, and holds no such entry."""
    verified = told["verified"]
    isComplete = verified["whole"] and not verified["unfinished"] and verified["entries"] > 0
    return onlyLeft and isComplete and told["total"] == 0


def localMinute(time_: str) -> str:
    """Return an entry's time (UTC, as ``2026-03-01T23:30:00Z``) to the minute of this computer's clock."""
    seconds = calendar.timegm(time.strptime(time_, "%Y-%m-%dT%H:%M:%SZ"))
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def folderWords(told: dict[str, Any]) -> str:
    """Return how many cases of a folder were added, and why the others were not, as rich text."""
    words = _("{added} cases were added, {left} left out.").format(added=told["added"], left=len(told["left_out"]))
    lines = [
        f"{html.escape(one['name'])}: {html.escape(one['words'])} <small>{html.escape(one['code'])}</small>"
        for one in told["left_out"][:MOST_NAMED]
    ]
    more = len(told["left_out"]) - len(lines)
    return "<br>".join([words, *lines, *([_("and {count} more").format(count=more)] if more else [])])


def progressWords(progress: Progress) -> str:
    """Return what is being done at this moment."""
    return progress.stage[:1].upper() + progress.stage[1:] + "…"


def roleWords(role: str) -> str:
    """Return what a case is for."""
    return _("the cases to train on") if role == "train" else _("the cases to score on")
