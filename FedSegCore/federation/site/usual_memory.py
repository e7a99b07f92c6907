"""What a site has told of its cohort as a whole, so that two tellings never differ by a few patients.

The means of five patients and of the same five with a sixth give the sixth away. So of every subject the same numbers
are told again until at least as many patients as the site's minimum have come or gone since.
"""

import hashlib
import hmac
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from FedSegCore.common.files import write_text
from FedSegCore.federation.private_files import keep_secret
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.learning.cohort_usual import LOOK, Measured
from FedSegCore.learning.task import TrainingTask
from FedSegCore.volumes.usual import CohortUsual, Usual


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Annotated[str, Field(max_length=200)]
    patients: frozenset[str]
    usual: Usual


class _Memory(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    told: tuple[_Told, ...] = ()


class UsualMemory:
    """Remembers, in a private file of the site, what was told of which patients.

    Args:
        folder: the site.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._file = folder.path / "usual-told.json"

    def steady(self, usual: CohortUsual, measured: Measured, minimum: int, task: TrainingTask) -> CohortUsual:
        """Return ``usual`` with what was told before where too few patients have changed; remembers the rest.

        What was told before of fewer patients than ``minimum``, which was raised since, is not told again: of that
        subject nothing is told until enough patients have changed.

        Args:
            usual: what would be told.
            measured: of which patients.
            minimum: patients that must have come or gone before other numbers are told.
            task: whose labels they are, and how the images were prepared: another way gives other looks.
        """
        before = {told.subject: told for told in self._read().told}
        prepared = hashlib.sha256(task.preprocessing.model_dump_json().encode()).hexdigest()[:16]
        names = {label.value: label.name for label in task.contract.labels}

        def one(subject: int, now: Usual) -> Usual | None:
            key = f"look {prepared}" if subject == LOOK else f"volume of {names[subject]}"
            patients = frozenset(map(self._known_as, measured[subject]))
            former = before.get(key)
            if former is not None and len(former.patients ^ patients) < minimum:
                return former.usual if former.usual.patients >= minimum else None
            before[key] = _Told(subject=key, patients=patients, usual=now)
            return now

        volumes = {value: one(value, now) for value, now in usual.volumes.items()}
        told = CohortUsual(
            look=None if usual.look is None else one(LOOK, usual.look),
            volumes={value: known for value, known in volumes.items() if known is not None},
        )
        memory = _Memory(told=tuple(before[key] for key in sorted(before)))
        write_text(self._file, memory.model_dump_json() + "\n", private=True)
        return told

    def _read(self) -> _Memory:
        try:
            return _Memory.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return _Memory()  # lost or damaged: told anew, as at the first time

    def _known_as(self, patient: str) -> str:
        secret = keep_secret(self._folder.pseudonym_secret).encode("ascii")
        return hmac.new(secret, patient.encode("utf-8"), hashlib.sha256).hexdigest()[:32]
