"""Releases that the coordinator sends: taken only if the coordinator of the invitation signed them.

They are kept in the site's folder ``releases``. Nothing of a release is executed; it is the signed card and a
safetensors file, as in one that comes as a file.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.federation.release_messages import ReleaseAnswer, ReleaseOffer
from FedSegCore.federation.site.budget import has_room
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Refused, ReleaseReceived
from FedSegCore.federation.site.policy import PolicyError
from FedSegCore.models.export import import_release
from FedSegCore.models.signing import fingerprint_of
from FedSegCore.models.verification import CARD, PUBLIC_KEY, SIGNATURE, WEIGHTS, card_from

_LEFT_S = 3600.0


class ReleaseIntake:
    """The ``ReleaseTaker`` of a real site.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def consider(self, offers: Sequence[ReleaseOffer]) -> ReleaseAnswer:
        """See ``ReleaseTaker.consider``; raises BadInputError ``release.no-key`` where the site trusts nobody's."""
        trusted = self._trusted()
        has: list[str] = []
        wanted: list[str] = []
        declined: dict[str, str] = {}
        for offer in offers:
            try:
                self._check(offer, trusted)
            except FedSegError as error:
                declined[offer.id] = error.code
                if has_room(self._folder):
                    self._folder.journal.append(Refused(code=error.code))
                continue
            (has if self._has(offer) else wanted).append(offer.id)
        return ReleaseAnswer(has=tuple(has), wanted=tuple(wanted), declined=declined)

    def take(self, offer: ReleaseOffer, weights: bytes) -> None:
        """See ``ReleaseTaker.take``; what was taken before changes nothing.

        Raises:
            BadInputError: ``release.*``: not signed by the invitation's coordinator, of another size than was said,
                damaged, another one of that name; ``import.*``.
            PolicyError: ``policy.message-size``, ``policy.disk``.
            CannotDoHereError: ``import.disk-full``.
        """
        trusted = self._trusted()
        self._check(offer, trusted)
        if len(weights) != offer.weights_bytes:
            # the room was counted by what was said
            raise BadInputError("release.other-size", "The weights are not as long as was said.", "Deliver it again.")
        if self._has(offer):
            return
        self._folder.releases.mkdir(mode=0o700, exist_ok=True)
        self._remove_leftovers()
        with tempfile.TemporaryDirectory(prefix=".arriving-", dir=self._folder.releases) as beside:
            arriving = Path(beside)
            (arriving / WEIGHTS).write_bytes(weights)
            (arriving / CARD).write_text(offer.card, encoding="utf-8", newline="")
            (arriving / SIGNATURE).write_bytes(bytes.fromhex(offer.signature))
            (arriving / PUBLIC_KEY).write_text(offer.public_key, encoding="ascii", newline="")
            taken = import_release(arriving, self._folder.releases, trusted)
        self._folder.journal.append(ReleaseReceived(weights_sha256=taken.card.weights_sha256, bytes=len(weights)))

    def _remove_leftovers(self) -> None:
        """Delete what was arriving when its process was killed; another one that is arriving now is younger."""
        for left in self._folder.releases.glob(".*ing-*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(left)

    def _trusted(self) -> frozenset[bytes]:
        invitation = self._folder.invitation()
        if invitation is None:
            raise BadInputError(
                "release.no-key",
                "This site was set up without an invitation and trusts no coordinator's releases.",
                "Join with an invitation, or take releases that come as files.",
            )
        return frozenset({invitation.release_key})

    def _check(self, offer: ReleaseOffer, trusted: frozenset[bytes]) -> None:
        card, public_key = card_from(
            offer.id, offer.card.encode("utf-8"), bytes.fromhex(offer.signature), offer.public_key.encode("ascii")
        )
        if public_key not in trusted:
            raise BadInputError(
                "release.signer-unknown",
                f"{offer.id} was signed by {fingerprint_of(public_key)}, not by the invitation's coordinator.",
                "Ask the coordinator; a new release key comes with a new invitation.",
            )
        if offer.id != f"{card.name}-v{card.version}":
            raise BadInputError("release.misnamed", "The card is that of another release.", "Ask the coordinator.")
        policy = self._folder.policy()
        if offer.weights_bytes > policy.limits.message_bytes:
            raise PolicyError(
                "policy.message-size",
                "The release is larger than the site's policy allows.",
                "Raise message_bytes in policy.json, or take it as a file.",
                offer.weights_bytes,
                policy.limits.message_bytes,
            )
        there = sum(path.stat().st_size for path in self._folder.releases.rglob("*") if path.is_file())
        if not self._has(offer) and there + offer.weights_bytes > policy.budget.disk_bytes:
            raise PolicyError(
                "policy.disk",
                "The releases that came fill the room that the policy gives them.",
                "Move old ones out of the site's folder releases, or raise disk_bytes in policy.json.",
                there + offer.weights_bytes,
                policy.budget.disk_bytes,
            )

    def _has(self, offer: ReleaseOffer) -> bool:
        try:
            return (self._folder.releases / offer.id / CARD).read_bytes() == offer.card.encode("utf-8")
        except OSError:
            return False
