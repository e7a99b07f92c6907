"""How a site's rounds went, for its own people only: training loss, and how well the received model did here.

``rounds.jsonl`` never leaves the site; what did leave stands in the journal.
"""

import json
import logging
import os
import time
from collections import defaultdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.federation.private_files import write_private
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.learning.results import RoundRequest, RoundResult

_KEPT = 10_000
_MAX_FILE = 16 * 1024**2

_log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class RoundRecord(BaseModel):
    """One round that was trained here.

    Attributes:
        time: when it was done (seconds since the epoch).
        round_number: 1-based.
        rounds: rounds planned in all.
        loss: mean training loss.
        dice: label → mean Dice of the received model over the cases scored on.
        cases: how many cases were scored.
        seconds: how long training and scoring took.
        skipped_steps: training steps that were left out, since their loss or gradient was not finite.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    time: float
    round_number: int
    rounds: int
    loss: float | None = None
    dice: dict[str, Share] = {}
    cases: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0


def keep_round(folder: SiteFolder, request: RoundRequest, result: RoundResult) -> None:
    """Write down how a round went; what was asked for and what left do not depend on it."""
    scores: dict[str, list[float]] = defaultdict(list)
    for score in result.scores:
        scores[score.label].append(score.dice)
    told = {
        "time": round(time.time(), 1),
        "round_number": request.round_number,
        "rounds": request.rounds,
        "loss": result.loss,
        "dice": {label: sum(values) / len(values) for label, values in scores.items()},
        "cases": len({score.case for score in result.scores}),
        "seconds": round(sum(result.seconds.values()), 1),
        "skipped_steps": result.skipped_steps,
    }
    try:
        record = RoundRecord.model_validate(told)
    except ValidationError:
        return  # a loss that is no number: the gate says what is wrong with such a round
    file = folder.round_records
    try:
        if not file.exists():
            write_private(file, b"")
        with file.open("a", encoding="utf-8") as lines:
            lines.write(record.model_dump_json() + "\n")
    except OSError as error:
        _log.warning("how the round went could not be written down (%s)", type(error).__name__)


def read_rounds(folder: SiteFolder) -> list[RoundRecord]:
    """Return the rounds that were trained here, oldest first; lines that cannot be read are left out."""
    try:
        with folder.round_records.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_FILE))
            lines = file.read().splitlines()[-_KEPT:]
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            records.append(RoundRecord.model_validate(json.loads(line)))
        except (ValueError, RecursionError):
            continue
    return records
