"""Numbers as people say them."""

from slicer.i18n import tr as _

from .Parameters import ModalityChoice
from .ReadyCheck import Choices
from .SegmentLogic import Inspection, Release


def timeWords(seconds: float | None) -> str:
    """Return what remains in words, ``""`` where it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return _("about {count} s left").format(count=max(1, round(seconds)))
    return _("about {count} min left").format(count=round(seconds / 60))


def confidenceWords(choices: Choices) -> str:
    """Return what the volume seems to be, how sure that is, and why."""
    inspection = choices.inspection
    if not isinstance(inspection, Inspection):
        return ""
    words = _("{modality}, {percent} % sure: {reason}.").format(
        modality=_nameOf(inspection.modality),
        percent=round(100 * inspection.confidence),
        reason=inspection.reason.rstrip("."),
    )
    overridden = choices.modality not in (ModalityChoice.AUTO,) and choices.modality.value != inspection.modality
    return (
        _("You say {own}. Detected: {words}").format(own=choices.modality.label(), words=words) if overridden else words
    )


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
        words.append(_("Mean Dice there: {dice:.2f}.").format(dice=release.dice))
    return " ".join(words)


def _nameOf(modality: str) -> str:
    known = {choice.value: choice.label() for choice in ModalityChoice}
    return known.get(modality, modality)
