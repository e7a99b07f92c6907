"""Notices that a site's policy was changed, by whatever means, and says so in its journal."""

import hashlib
import threading

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import write_text
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import PolicyChanged


class PolicyWatch:
    """Compares the policy with the one that was seen last; used before anything is answered under it.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def look(self) -> None:
        """Journal a policy that is another than before; a damaged one is left to whoever reads it.

        Raises:
            FedSegError: ``journal.*``.
        """
        with self._lock:
            seen = self._folder.policy_seen
            try:
                digest = hashlib.sha256(self._folder.policy_file.read_bytes()).hexdigest()
                minimum = self._folder.policy().privacy.minimum_cases
            except (OSError, BadInputError):
                return
            before = seen.read_text(encoding="ascii").strip() if seen.exists() else ""
            if digest == before:
                return
            self._folder.journal.append(PolicyChanged(policy_sha256=digest, minimum_cases=minimum))
            write_text(seen, digest + "\n", private=True)
