"""Numbers as people say them."""

import html
from typing import Any

from slicer.i18n import tr as _

from .Parameters import ModalityChoice
from .ReadyCheck import Choices, releasesFor
from .SegmentTypes import Expectation, Inspection, Release


def timeWords(seconds: float | None) -> str:
    """Return what remains in words, ``""`` where it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return _("about {count} s left").format(count=max(1, round(seconds)))
    return _("about {count} min left").format(count=round(seconds / 60))


def sizeWords(megabytes: int) -> str:
    """Return a size for people."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


def expectationWords(expectation: Expectation) -> str:
    """Return how long a run may take and how much memory it may need, or that nobody knows yet."""
    if expectation.seconds is None:
        return _("How long it takes here is unknown until the first run with this model.")
    seconds, memory = expectation.seconds, sizeWords(max(1, round(expectation.memoryBytes / 1e6)))
    time = _("{count} s").format(count=max(1, round(seconds)))
    if seconds >= 90:
        time = _("{count} min").format(count=round(seconds / 60))
    words = _("Expect about {time} and {memory} of memory, as in {runs} earlier runs here.")
    if expectation.runs == 1:
        words = _("Expect about {time} and {memory} of memory, as in one earlier run here.")
    words = words.format(time=time, memory=memory, runs=expectation.runs)
    if expectation.memoryBytes <= expectation.freeBytes:
        return words
    free = _("Only {free} are free: close other programs first.").format(
        free=sizeWords(round(expectation.freeBytes / 1e6))
    )
    return f"{words} {free}"


def confidenceWords(choices: Choices) -> str:
    """Return what the volume seems to be, how sure that is, and why."""
    inspection = choices.inspection
    if not isinstance(inspection, Inspection):
        return ""
    words = _("{modality}, {percent} % sure: {reason}.").format(
        modality=modalityName(inspection.modality),
        percent=round(100 * inspection.confidence),
        reason=inspection.reason.rstrip("."),
    )
    overridden = choices.modality not in (ModalityChoice.AUTO,) and choices.modality.value != inspection.modality
    return (
        _("You say {own}. Detected: {words}").format(own=choices.modality.label(), words=words) if overridden else words
    )


def listedWords(release: Release) -> str:
    """Return a release as the list of models has it."""
    words = _("{name}, version {version}").format(name=release.name, version=release.version)
    return words if release.isTrusted else _("{words} (signer unknown)").format(words=words)


def newsWords(release: str, choices: Choices) -> str:
    """Return that the federation has sent a model, and where it is, as rich text."""
    words = _("<b>New model from your federation:</b> {release}.").format(release=html.escape(release))
    if any(release == fitting.id for fitting in releasesFor(choices)):
        return words + " " + _("It is in the list above.")
    for known in choices.releases or []:
        if known.id == release:
            names = ", ".join(modalityName(modality) for modality in known.modalities)
            return words + " " + _("It is for {names} images: choose one, and it is in the list.").format(names=names)
    return words


def releaseWords(release: Release) -> str:
    """Return what a release finds and what it was made of."""
    words = [_("Finds {labels}.").format(labels=", ".join(release.labels))]
    if release.sites == 1:
        words.append(_("Trained by one site in {rounds} rounds.").format(rounds=release.rounds))
    elif release.sites > 1:
        words.append(
            _("Trained by {sites} sites in {rounds} rounds.").format(sites=release.sites, rounds=release.rounds)
        )
    if release.dice is not None:
        own = release.card.get("own_models", False)
        there = _("Mean Dice of the sites' own models: {dice:.2f}.") if own else _("Mean Dice there: {dice:.2f}.")
        words.append(there.format(dice=release.dice))
    return " ".join(words)


def cardWords(release: Release) -> str:
    """Return a release's card as rich text: who made it of what, who signed it, and how well it did by structure."""
    card = release.card
    lines = [
        f"<b>{html.escape(release.id)}</b>",
        _("Made by the federation {federation} ({rule}) on {day}.").format(
            federation=html.escape(card["federation"]), rule=html.escape(card["rule"]), day=card["created"][:10]
        ),
        _("Trained on {cases} cases of {sites} sites in {rounds} rounds.").format(
            cases=card["training_cases"], sites=release.sites, rounds=release.rounds
        ),
        _signerWords(release),
    ]
    scores = [score for score in card["scores"] if score["metric"] == "dice"]
    lines += [
        _("{label}: Dice {mean:.2f} ± {spread:.2f} in {cases} cases").format(
            label=html.escape(score["label"]),
            mean=score["mean"],
            spread=score["standard_deviation"],
            cases=score["cases"],
        )
        for score in scores
    ]
    return "<br>".join([*lines, _scoresNote(card) if scores else _("No scores.")])


def _scoresNote(card: dict[str, Any]) -> str:
    if card.get("own_models", False):
        return _("Scores are of the sites' own models before the last round; this model was made of them all.")
    return _("Scores are the sites' own, of the model as it was before the last round.")


def _signerWords(release: Release) -> str:
    words = (
        _("Signed by {signer}, the coordinator of this computer's site.")
        if release.isTrusted
        else _("<b>Signer unknown</b>: {signer}. Nobody has said here whose key that is; compare it by telephone.")
    )
    return words.format(signer=html.escape(release.card["signer"]))


def modalityName(modality: str) -> str:
    """Return the name people read of a DICOM modality code."""
    known = {choice.value: choice.label() for choice in ModalityChoice}
    return known.get(modality, modality)
