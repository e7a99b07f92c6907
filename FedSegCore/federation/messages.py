"""The messages between server app and client app: what is in them, written and read in one place.

A query carries the protocol version and how many sites are waited for, and is answered by a ``SiteIntroduction``. A
train message carries the model, the ``RoundOrder`` and nothing else; its answer carries the trained model, the rule's
extra tensors and a ``RoundReport``. A site that cannot answer sends a stable code, never a text.
"""

import re
from typing import Annotated, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.errors import BadInputError, FedSegError
from FedSegCore.common.names import Name
from FedSegCore.common.validation import places_of
from FedSegCore.federation.compression import Decoded, raised
from FedSegCore.federation.payload import records_of
from FedSegCore.federation.software import PROTOCOL
from FedSegCore.federation.tensors import from_record, to_record
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.learning.lesion_sizes import MOST_BINS
from FedSegCore.learning.privacy import PrivacyRules
from FedSegCore.learning.results import Arrays, CaseScore, RoundRequest, RoundResult
from FedSegCore.learning.task import TrainingTask
from FedSegCore.volumes.usual import CohortUsual

Count = Annotated[int, Field(ge=0, le=10**9)]
ShortText = Annotated[str, Field(max_length=64)]

_CODE = re.compile(r"[a-z0-9-]{1,40}(\.[a-z0-9-]{1,60}){0,3}")
_MOST_MISSING = 100_000
_MAX_JSON = 4 * 1024 * 1024

Part = TypeVar("Part", bound=BaseModel)


Values = Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(max_length=255)]
"""Values of the contract's labels."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SiteIntroduction(_Part):
    """How a site introduces itself.

    Attributes:
        protocol: version of these messages.
        site: the name it was given at joining.
        modality: DICOM modality code.
        training_cases: cases it trains on.
        validation_cases: cases it scores on.
        software: package → version.
        fingerprint: SHA-256 of its installed FedSegCore.
    """

    protocol: int = PROTOCOL
    site: Name
    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")]
    training_cases: Count
    validation_cases: Count
    software: Annotated[dict[ShortText, ShortText], Field(max_length=32)] = {}
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RoundOrder(_Part):
    """What the server asks for in a round, beside the model.

    Attributes:
        protocol: version of these messages.
        group: the site's group.
        round_number: 1-based.
        rounds: rounds planned in all.
        seed: the federation's seed.
        task: what to train; checked here like anything else that comes from outside.
        privacy: what the federation demands of the answer beyond the site's own policy.
        exchange: in which form models and answers travel.
        usual: the site shall tell what is usual in its training cohort, which it has not yet.
        trained_values: contract values that sites of the group have annotated so far.
    """

    protocol: int = PROTOCOL
    group: Annotated[str, Field(pattern=r"^[A-Za-z]{2,16}$")]
    round_number: Annotated[int, Field(ge=1, le=10_000)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    task: TrainingTask
    privacy: PrivacyRules = PrivacyRules()
    exchange: ExchangeConfig = ExchangeConfig()
    usual: bool = False
    trained_values: Values = ()

    @property
    def request(self) -> RoundRequest:
        """The part the trainer sees."""
        told = (self.privacy, self.exchange, self.usual, self.trained_values)
        return RoundRequest(self.round_number, self.rounds, self.seed, *told)


class RoundReport(_Part):
    """What a site answers beside tensors; see ``RoundResult``."""

    round_number: Annotated[int, Field(ge=1)]
    num_examples: Count
    num_steps: Count
    loss: float | None
    scores: tuple[CaseScore, ...] = ()
    seconds: Annotated[dict[ShortText, float], Field(max_length=32)] = {}
    annotated: Values = ()
    lesion_counts: Annotated[tuple[Count, ...], Field(max_length=MOST_BINS)] = ()
    usual: CohortUsual | None = None
    encoded: bool = False
    unchanged: tuple[Annotated[str, Field(max_length=256)], ...] = ()


def write_query(missing: int = 0) -> RecordDict:
    """Return the content of a query; it tells how many more sites the receiver's group is waiting for."""
    return RecordDict({"query": ConfigRecord({"protocol": PROTOCOL, "missing": missing})})


def read_query(content: RecordDict) -> int:
    """Return how many more sites are waited for, 0 where a query says nothing sensible of it."""
    record = dict(records_of(content, ConfigRecord)).get("query")
    missing = None if record is None else record.get("missing")
    return missing if isinstance(missing, int) and 0 < missing <= _MOST_MISSING else 0


def write_introduction(introduction: SiteIntroduction) -> RecordDict:
    """Return the content of a site's answer to a query."""
    return RecordDict({"site": ConfigRecord({"json": introduction.model_dump_json()})})


def read_introduction(content: RecordDict) -> SiteIntroduction:
    """Read an answer to a query; raises FedSegError with the site's code, or BadInputError ``reply.*``."""
    raise_failure(content)
    return _read(SiteIntroduction, content, "site", "reply")


def write_order(order: RoundOrder, model: ArrayRecord) -> RecordDict:
    """Return the content of a train message; ``model`` is ``to_record`` of what the site shall train,
    ``lowered`` as the order's exchange says."""
    return RecordDict({"model": model, "order": ConfigRecord({"json": order.model_dump_json()})})


def read_order(content: RecordDict) -> tuple[RoundOrder, Arrays]:
    """Read a train message; raises BadInputError ``request.*`` or ``tensors.*``."""
    order = _read(RoundOrder, content, "order", "request")
    return order, raised(from_record(_record(content, "model", "request")))


def write_result(result: RoundResult, round_number: int) -> RecordDict:
    """Return the content of a site's answer to a train message."""
    report = RoundReport(
        round_number=round_number,
        num_examples=result.num_examples,
        num_steps=result.num_steps,
        loss=result.loss,
        scores=result.scores,
        seconds=dict(result.seconds),
        annotated=result.annotated,
        lesion_counts=result.lesion_counts,
        usual=result.usual,
        encoded=result.encoded,
        unchanged=result.unchanged,
    )
    return RecordDict(
        {
            "model": to_record(result.weights),
            "extras": to_record(result.extras),
            "report": ConfigRecord({"json": report.model_dump_json()}),
        }
    )


def read_result(content: RecordDict, base: Arrays | None = None) -> tuple[RoundReport, Arrays, Arrays]:
    """Read (report, weights, extras); raises FedSegError with the site's code, or BadInputError ``reply.*``.

    Args:
        content: the answer.
        base: the model that the site's changes are added to: what it was sent, in full precision. Not needed for an
            answer that is not encoded.
    """
    raise_failure(content)
    report = _read(RoundReport, content, "report", "reply")
    parts = [from_record(_record(content, name, "reply"), copy=not report.encoded) for name in ("model", "extras")]
    if not report.encoded:
        return report, parts[0], parts[1]
    known = base or {}
    return report, Decoded(parts[0], known, report.unchanged), Decoded(parts[1], known)


def write_failure(code: str) -> RecordDict:
    """Return the content of an answer that says only ``code``."""
    return RecordDict({"failure": ConfigRecord({"code": code if _CODE.fullmatch(code) else "site.failed"})})


def raise_failure(content: RecordDict) -> None:
    """Raise FedSegError with a site's code where ``content`` is an answer that says only that."""
    record = dict(records_of(content, ConfigRecord)).get("failure")
    if record is not None:
        code = record.get("code")
        known = code if isinstance(code, str) and _CODE.fullmatch(code) else "site.failed"
        raise FedSegError(known, "The site answered that it cannot.", "The site's own log says why.")


def _record(content: RecordDict, name: str, side: str) -> ArrayRecord:
    record = dict(records_of(content, ArrayRecord)).get(name)
    if record is None:
        raise BadInputError(f"{side}.incomplete", f"The message has no {name!r}.", "Update the other side.")
    return record


def _read(model: type[Part], content: RecordDict, name: str, side: str) -> Part:
    record = dict(records_of(content, ConfigRecord)).get(name)
    text = None if record is None else record.get("json")
    if not isinstance(text, str) or len(text) > _MAX_JSON:
        raise BadInputError(f"{side}.incomplete", f"The message has no usable {name!r}.", "Update the other side.")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise BadInputError(
            f"{side}.invalid", f"Not as agreed: {places_of(error, 5)}.", "Update the other side."
        ) from error
