"""The messages by which a published release reaches the sites: an offer of signed cards, then the weights asked for.

Both are queries. An offer holds the cards with their signatures; the site answers which weights it wants. A parcel
holds one card again and its weights, as the bytes of their file; the site answers that it has the release. Whose
releases a site takes is its own business (``site.release_intake``): what is read here is not trusted yet.
"""

from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.names import NAME, no_device
from FedSegCore.federation.messages import raise_failure
from FedSegCore.federation.payload import records_of
from FedSegCore.federation.tensors import from_record, to_record
from FedSegCore.models.release import Release
from FedSegCore.models.verification import CARD, LARGEST, PUBLIC_KEY, SIGNATURE, WEIGHTS, verified_file

MOST_OFFERS = 32
"""Releases that one offer may name."""

_MAX_JSON = 8 * 2**20
_RECORD = "releases"
_WEIGHTS = "weights"

ReleaseId = Annotated[str, Field(pattern=rf"^{NAME}-v[1-9][0-9]{{0,8}}$"), AfterValidator(no_device)]


Code = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}(\.[a-z0-9-]{1,60}){1,3}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Part = TypeVar("Part", bound=_Part)


class ReleaseOffer(_Part):
    """A release without its weights.

    Attributes:
        id: its name with its version.
        card: ``card.json``, to the byte.
        signature: 64 bytes over it, in hexadecimal.
        public_key: of who signed it, PEM.
        weights_bytes: size of the weights' file.
    """

    id: ReleaseId
    card: Annotated[str, Field(max_length=LARGEST[CARD])]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    public_key: Annotated[str, Field(max_length=LARGEST[PUBLIC_KEY])]
    weights_bytes: Annotated[int, Field(ge=1, le=LARGEST[WEIGHTS])]

    @classmethod
    def of(cls, release: Release) -> "ReleaseOffer":
        """Return the offer of an opened release."""
        return cls(
            id=release.id,
            card=verified_file(release.path, CARD).read_text(encoding="utf-8"),
            signature=verified_file(release.path, SIGNATURE).read_bytes().hex(),
            public_key=verified_file(release.path, PUBLIC_KEY).read_text(encoding="ascii"),
            weights_bytes=verified_file(release.path, WEIGHTS).stat().st_size,
        )


class _Offers(_Part):
    offers: Annotated[tuple[ReleaseOffer, ...], Field(min_length=1, max_length=MOST_OFFERS)]


class ReleaseAnswer(_Part):
    """What a site says to an offer.

    Attributes:
        has: releases it has already.
        wanted: releases whose weights it asks for.
        declined: release → the stable code of why not.
    """

    has: Annotated[tuple[ReleaseId, ...], Field(max_length=MOST_OFFERS)] = ()
    wanted: Annotated[tuple[ReleaseId, ...], Field(max_length=MOST_OFFERS)] = ()
    declined: Annotated[dict[ReleaseId, Code], Field(max_length=MOST_OFFERS)] = {}


class ReleaseTaker(Protocol):
    """The part of a site that takes releases."""

    def consider(self, offers: Sequence[ReleaseOffer]) -> ReleaseAnswer:
        """Return which of the offered releases the site wants."""

    def take(self, offer: ReleaseOffer, weights: bytes) -> None:
        """Keep a release, after checking all of it; raises FedSegError where it is not taken."""


def write_offers(releases: Sequence[Release]) -> RecordDict:
    """Return the content of an offer."""
    offers = _Offers(offers=tuple(map(ReleaseOffer.of, releases)))
    return RecordDict({_RECORD: ConfigRecord({"json": offers.model_dump_json()})})


def write_parcel(release: Release) -> RecordDict:
    """Return the content of a parcel."""
    data = np.frombuffer(verified_file(release.path, WEIGHTS).read_bytes(), np.uint8)
    return RecordDict({**write_offers([release]), _WEIGHTS: to_record({WEIGHTS: data})})


def is_about_releases(content: RecordDict) -> bool:
    """Return whether a query offers or brings releases."""
    return _RECORD in dict(records_of(content, ConfigRecord))


def answer_about_releases(content: RecordDict, taker: ReleaseTaker) -> RecordDict:
    """Let the site consider an offer or take a parcel, and return its answer.

    Raises:
        BadInputError: ``request.*``, ``tensors.*``: the message is none of ours; what ``taker`` raises.
    """
    offers = _read(_Offers, content, "request").offers
    parcel = dict(records_of(content, ArrayRecord)).get(_WEIGHTS)
    if parcel is None:
        return _answer(taker.consider(offers))
    arrays = from_record(parcel, copy=False)
    if len(offers) != 1 or list(arrays) != [WEIGHTS] or arrays[WEIGHTS].dtype != np.uint8:
        raise BadInputError("request.invalid", "A parcel holds one release.", "Update the coordinator.")
    taker.take(offers[0], arrays[WEIGHTS].tobytes())
    return _answer(ReleaseAnswer(has=(offers[0].id,)))


def read_answer(content: RecordDict) -> ReleaseAnswer:
    """Read a site's answer; raises FedSegError with the site's code, or BadInputError ``reply.*``."""
    raise_failure(content)
    return _read(ReleaseAnswer, content, "reply")


def _answer(answer: ReleaseAnswer) -> RecordDict:
    return RecordDict({_RECORD: ConfigRecord({"json": answer.model_dump_json()})})


def _read(model: type[Part], content: RecordDict, side: str) -> Part:
    record = dict(records_of(content, ConfigRecord)).get(_RECORD)
    text = None if record is None else record.get("json")
    if not isinstance(text, str) or len(text) > _MAX_JSON:
        raise BadInputError(f"{side}.incomplete", f"The message has no usable {_RECORD!r}.", "Update the other side.")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise BadInputError(f"{side}.invalid", "The message is not as agreed.", "Update the other side.") from error
