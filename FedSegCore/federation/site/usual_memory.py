"""What a site has told of its cohort as a whole, so that two tellings never differ by a few patients.

The means of five patients and of the same five with a sixth give the sixth away. So of every subject the same numbers
are told again until at least as many patients as the site's minimum have come or gone since. How images are prepared
and what a label is called is the server's choice: asked in another way of nearly the same patients, nothing is told.
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

_LOOK_OF = "look "


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Annotated[str, Field(max_length=200)]
    value: int | None = None
    patients: frozenset[str]
    usual: Usual

    def of_the_same(self, other: "_Told") -> bool:
        """Return whether both tell of a look, or of one structure: sites know it by its number or by its name."""
        if self.subject.startswith(_LOOK_OF) or other.subject.startswith(_LOOK_OF):
            return self.subject.startswith(_LOOK_OF) and other.subject.startswith(_LOOK_OF)
        return self.value == other.value or self.subject == other.subject

    def repeats(self, other: "_Told") -> bool:
        """Return whether ``other`` is asked for in the very way of this one."""
        return self.subject == other.subject and self.value in (other.value, None)

    def changes(self, other: "_Told") -> int:
        """Return how many patients have come or gone between the two."""
        return len(self.patients ^ other.patients)


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
        subject nothing is told until enough patients have changed. So it is where it was told of images that were
        prepared in another way, or of a label that was called otherwise.

        Args:
            usual: what would be told.
            measured: of which patients.
            minimum: patients that must have come or gone before other numbers are told.
            task: whose labels they are, and how the images were prepared: another way gives other looks.
        """
        told = list(self._read().told)
        prepared = hashlib.sha256(task.preprocessing.model_dump_json().encode()).hexdigest()[:16]
        names = {label.value: label.name for label in task.contract.labels}

        def one(value: int, usual: Usual) -> Usual | None:
            subject = f"{_LOOK_OF}{prepared}" if value == LOOK else f"volume of {names[value]}"
            patients = frozenset(map(self._known_as, measured[value]))
            now = _Told(subject=subject, value=value, patients=patients, usual=usual)
            near = [former for former in told if former.of_the_same(now) and former.changes(now) < minimum]
            if not near:
                told.append(now)
                return usual
            again = [former.usual for former in near if former.repeats(now)]
            return again[-1] if again and again[-1].patients >= minimum else None

        volumes = {value: one(value, now) for value, now in usual.volumes.items()}
        steady = CohortUsual(
            look=None if usual.look is None else one(LOOK, usual.look),
            volumes={value: known for value, known in volumes.items() if known is not None},
        )
        # lasting: what was told must not be forgotten and told anew of a patient more
        write_text(self._file, _Memory(told=tuple(told)).model_dump_json() + "\n", private=True, lasting=True)
        return steady

    def _read(self) -> _Memory:
        try:
            return _Memory.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return _Memory()  # lost or damaged: told anew, as at the first time

    def _known_as(self, patient: str) -> str:
        secret = keep_secret(self._folder.pseudonym_secret).encode("ascii")
        return hmac.new(secret, patient.encode("utf-8"), hashlib.sha256).hexdigest()[:32]
