"""A client app's process writes into the site's journal what leaves beside rounds' results."""

from flwr.app import RecordDict

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import Introduced, Refused
from FedSegCore.federation.trainer_port import JOURNALLED_BY_TRAINER, SiteDescription


class JournalWatch:
    """The ``AnswerWatch`` of a real site; its methods raise what ``Journal.append`` raises.

    Args:
        journal: the site's journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

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
        if not error.code.startswith(JOURNALLED_BY_TRAINER):
            self._journal.append(Refused(code=error.code))
