"""A client app's process writes into the site's journal what leaves beside rounds' results."""

import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import RecordDict

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.files import write_json
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import Introduced, Refused
from FedSegCore.federation.trainer_port import JOURNALLED_BY_TRAINER, SiteDescription


class JournalWatch:
    """The ``AnswerWatch`` of a real site; its methods raise what ``Journal.append`` raises.

    Args:
        journal: the site's journal.
        has_room: whether a refusal may still be written; see ``budget``.
        notice: file that says how many more sites are waited for, for ``site.state``; None writes none.
    """

    def __init__(
        self, journal: Journal, has_room: Callable[[], bool] = lambda: True, notice: Path | None = None
    ) -> None:
        self._journal = journal
        self._has_room = has_room
        self._notice = notice

    def asked(self, missing: int) -> None:
        """See ``AnswerWatch.asked``."""
        if self._notice is not None:
            write_json(self._notice, {"missing": missing, "time": time.time()}, private=True)

    def introduced(self, description: SiteDescription, content: RecordDict) -> None:
        """See ``AnswerWatch.introduced``."""
        payload = payload_of(content)
        self._journal.append(
            Introduced(
                training_cases=description.training_cases,
                validation_cases=description.validation_cases,
                bytes=payload.bytes,
                sha256=payload.sha256,
            )
        )

    def refused(self, error: FedSegError) -> None:
        """See ``AnswerWatch.refused``."""
        if not error.code.startswith(JOURNALLED_BY_TRAINER) and self._has_room():
            self._journal.append(Refused(code=error.code))
