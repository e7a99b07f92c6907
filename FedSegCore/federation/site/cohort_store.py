"""A site's private store of cases: checked copies without names, and consent for each of them.

``store/index.json`` knows patients, consents and roles; ``store/cases/<random id>/`` holds image, label map (in the
contract's numbers) and thumbnail; ``store/cohort.json`` is what the trainer reads: the cases with consent, no more.
"""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.common.files import remove_unfinished, whole_folder, write_text
from FedSegCore.federation.private_files import private_folder, write_private
from FedSegCore.federation.site.case_checks import CaseFinding, check_case, voxel_digest
from FedSegCore.federation.site.case_intake import CaseOffer, CaseRefusedError, CheckedCase, check_offer
from FedSegCore.federation.site.case_labels import Naming
from FedSegCore.federation.site.cohort_file import CohortCase, CohortDescription
from FedSegCore.federation.site.cohort_index import CohortIndex, Consent, StoredCase, consent_of
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import CaseAdded, CaseRemoved, ConsentGiven, ConsentRevoked
from FedSegCore.reporting.overlays import overlay_png
from FedSegCore.volumes.labels import NOT_ANNOTATED, LabelContract, SiteLabelMapping
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import write_volume

IMAGE, LABELS, THUMBNAIL = "image.nrrd", "labels.nrrd", "thumbnail.png"
_LOCK_S = 30.0
_CASE = re.compile(r"[0-9a-f]{16}")


class CohortStore:
    """The store of one site; any process may use it, one at a time.

    Args:
        folder: the site.
        contract: the federation's labels, where neither the site's invitation nor an earlier case says them.
    """

    def __init__(self, folder: SiteFolder, contract: LabelContract | None = None) -> None:
        self._folder = folder
        self._given = contract

    def index(self) -> CohortIndex:
        """Return everything the store knows; raises BadInputError ``store.damaged``."""
        try:
            index = CohortIndex.model_validate_json(self._index_file.read_bytes())
        except FileNotFoundError:
            return CohortIndex()
        except (OSError, ValidationError) as error:
            raise BadInputError(
                "store.damaged", "The index of the site's cases cannot be read.", "Restore store/index.json."
            ) from error
        # an emptied store may begin anew with another modality
        return index if index.cases else index.model_copy(update={"modality": None})

    def contract(self) -> LabelContract:
        """Return the labels of the federation.

        Raises:
            BadInputError: ``store.no-contract``: nobody has said them; ``store.other-contract``: the store's cases were
                written for other labels.
        """
        invitation = self._folder.invitation()
        told = (None if invitation is None else invitation.contract) or self._given
        kept = self.index().contract
        if told is None and kept is None:
            raise BadInputError(
                "store.no-contract",
                "Nobody has said which structures the federation segments.",
                "Join with an invitation that says them, or give the federation's file of them.",
            )
        if told is not None and kept is not None and told != kept and self.index().cases:
            raise BadInputError(
                "store.other-contract",
                "The cases in the store were taken in for other structures than the federation's.",
                "Remove them and add them again.",
            )
        found = told or kept
        assert found is not None
        return found

    def case(self, case_id: str) -> StoredCase:
        """Return a case of the store; raises UsageError ``store.no-such-case``."""
        for case in self.index().cases:
            if case.case == case_id:
                return case
        raise UsageError("store.no-such-case", "There is no such case in the store.", "List the site's cases.")

    def thumbnail(self, case_id: str) -> Path:
        """Return the case's picture with outlines (PNG)."""
        return self._case_folder(self.case(case_id).case) / THUMBNAIL

    def check(self, offer: CaseOffer) -> CheckedCase:
        """Read an offered case and return what is found; nothing is written.

        Raises:
            BadInputError: a file cannot be read (``image.*``, ``labels.*``); ``store.*``.
        """
        return check_offer(offer, self.index(), self.contract())

    def add(
        self,
        offer: CaseOffer,
        consent: Consent | None = None,
        report: Callable[[CheckedCase], None] | None = None,
    ) -> StoredCase:
        """Check a case and copy it into the store; without consent it waits there and is not used.

        Args:
            offer: the case.
            consent: to training on it.
            report: called with what was found, also where that keeps the case out.

        Raises:
            CaseRefusedError: what was found keeps it out.
            UsageError: ``store.own-cohort``: the site trains on a cohort file of its own; ``store.consent-name``,
                ``store.consent-day``.
            BadInputError: as ``check``.
            CannotDoHereError: it cannot be written.
        """
        self._require_own()
        if consent is not None:
            consent = consent_of(consent.by, consent.given)
        with self._locked():
            checked = self.check(offer)
            if report is not None:
                report(checked)
            if checked.refused:
                raise CaseRefusedError(checked.refused)
            case = self._take_in(offer, checked)
        return case if consent is None else self.consent(case.case, consent.by, consent.given)

    def _take_in(self, offer: CaseOffer, checked: CheckedCase) -> StoredCase:
        index, contract = self.index(), self.contract()
        known = index.of_patient(offer.patient)
        case = StoredCase(
            case=secrets.token_hex(8),
            patient=offer.patient,
            pseudonym=f"p-{secrets.token_hex(8)}" if known is None else known.pseudonym,
            title=(offer.title or offer.image.name)[:512],
            role=checked.role,
            annotated=tuple(label.name for label in contract.labels if label.value in checked.annotated),
            added=date.today(),
            sha256=checked.sha256,
            labels_sha256=voxel_digest(checked.labels),
            accepted=checked.accepted,
        )
        changes = {
            "modality": checked.image.modality,
            "contract": contract,
            "naming": index.naming_with(offer.naming),
            "cases": (*index.cases, case),
        }
        self._write_case(case.case, checked, contract)
        try:
            self._folder.journal.append(CaseAdded(case=case.case))
            self._save(index.model_copy(update=changes))
        except BaseException:
            shutil.rmtree(self._case_folder(case.case), ignore_errors=True)
            raise
        return case

    def consent(self, case_id: str, by: str, given: date | None = None) -> StoredCase:
        """Note the consent to train on a case: it takes part from the next round on.

        Raises:
            UsageError: ``store.no-such-case``, ``store.consent``: there is consent already, ``store.consent-name``,
                ``store.consent-day``.
        """
        agreed = consent_of(by, given)
        with self._locked():
            case = self.case(case_id)
            if case.consented:
                raise UsageError("store.consent", "There is consent already.", "List the site's cases.")
            # nothing is used that the journal does not know of
            self._folder.journal.append(ConsentGiven(case=case_id))
            return self._replace(case.model_copy(update={"consents": (*case.consents, agreed)}))

    def revoke(self, case_id: str, on: date | None = None) -> StoredCase:
        """Take the consent back: the case stays in the store but is in no further round.

        Raises:
            UsageError: ``store.no-such-case``, ``store.no-consent``.
        """
        with self._locked():
            case = self.case(case_id)
            if not case.consented:
                raise UsageError("store.no-consent", "There is no consent to take back.", "List the site's cases.")
            last = case.consents[-1].model_copy(update={"revoked": on or date.today()})
            changed = self._replace(case.model_copy(update={"consents": (*case.consents[:-1], last)}))
            self._folder.journal.append(ConsentRevoked(case=case_id))
            return changed

    def remove(self, case_id: str) -> None:
        """Delete the store's copy of a case and what the index knows of it; the given files are not touched.

        Whether the patient was trained or scored on is kept, under a hash.

        Raises:
            UsageError: ``store.no-such-case``.
            BadInputError: ``journal.*``: the case stays as it is, and can be removed once the journal is mended.
            CannotDoHereError: ``store.not-deleted``.
        """
        with self._locked():
            case = self.case(case_id)
            # first of all: a case that the index has forgotten could not be removed a second time
            self._folder.journal.append(CaseRemoved(case=case_id))
            self._save(self.index().without(case))
            try:
                shutil.rmtree(self._case_folder(case_id))
            except FileNotFoundError:
                return
            except OSError as error:
                raise CannotDoHereError(
                    "store.not-deleted",
                    "The case is used no more, but its copy could not be deleted.",
                    "Close what uses the site's store: the copy goes when its cases are changed the next time.",
                ) from error

    def check_stored(self, case_id: str) -> tuple[CaseFinding, ...]:
        """Check a case of the store again, for the labels of today's federation; also that its files are unchanged."""
        case, contract = self.case(case_id), self.contract()
        modality = self.index().modality or ""
        try:
            image = read_volume(self._case_folder(case_id) / IMAGE, modality=modality)
            labels = read_label_map(self._case_folder(case_id) / LABELS)
        except BadInputError as error:
            return (CaseFinding(error.code, error.what, error.remedy),)
        findings: list[CaseFinding] = []
        if (voxel_digest(image), voxel_digest(labels)) != (case.sha256, case.labels_sha256):
            findings.append(
                CaseFinding(
                    "case.changed",
                    "The store's copy of this case was changed after it was taken in.",
                    "Remove the case and add it again.",
                )
            )
        annotated = [label.value for label in contract.labels if label.name in case.annotated]
        findings += check_case(image, labels, contract, annotated, modality)
        return tuple(found for found in findings if found.code not in case.accepted)

    def take_over(self, case: CohortCase, cohort: CohortDescription, base: Path) -> CaseOffer:
        """Return a case of a cohort file as an offer, with the names that its mapping gives."""
        mapping = case.mapping or cohort.mapping
        naming = {} if mapping is None else _naming_of(mapping)
        return CaseOffer(base / case.image, base / case.labels, case.patient, cohort.modality, naming, case.role)

    @property
    def _index_file(self) -> Path:
        return self._folder.store / "index.json"

    def _case_folder(self, case_id: str) -> Path:
        return self._folder.store / "cases" / case_id

    def _require_own(self) -> None:
        if self._folder.cohort != self._folder.store_cohort:
            raise UsageError(
                "store.own-cohort",
                "This site trains on a cohort file of its own, not on its store.",
                'Set "cohort" in the site\'s site.json to "store/cohort.json", then import the file\'s cases.',
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        private_folder(self._folder.store)
        private_folder(self._folder.store / "cases")
        try:
            with FileLock(self._folder.store / "lock", timeout=_LOCK_S, mode=0o600, is_singleton=True):
                self._sweep()
                yield
        except Timeout as error:
            raise CannotDoHereError(
                "store.busy", "Another program is changing the site's cases.", "Wait until it is done."
            ) from error

    def _sweep(self) -> None:
        """Mend what processes that were killed have left: half-written files, copies and consents no index knows."""
        cases = self._folder.store / "cases"
        remove_unfinished(self._folder.store)
        remove_unfinished(cases)
        if not self._index_file.exists():
            return  # where it was lost, it may be restored
        index = self.index()
        self._write_cohort(index)
        known = {case.case for case in index.cases}
        for copy in cases.iterdir():
            if _CASE.fullmatch(copy.name) and copy.name not in known:
                shutil.rmtree(copy, ignore_errors=True)

    def _write_case(self, case_id: str, checked: CheckedCase, contract: LabelContract) -> None:
        try:
            with whole_folder(self._case_folder(case_id)) as beside:
                beside.chmod(0o700)
                write_volume(checked.image, beside / IMAGE)
                write_volume(Volume(checked.labels.array, checked.labels.grid), beside / LABELS)
                picture = overlay_png(checked.image, [("", checked.labels)], contract)
                write_private(beside / THUMBNAIL, picture)
        except OSError as error:
            raise CannotDoHereError(
                "store.unwritable", "The case cannot be written into the store.", "Make room on the site's disk."
            ) from error

    def _replace(self, case: StoredCase) -> StoredCase:
        index = self.index()
        cases = tuple(case if kept.case == case.case else kept for kept in index.cases)
        self._save(index.model_copy(update={"cases": cases}))
        return case

    def _save(self, index: CohortIndex) -> None:
        """Write index and cohort file so that a case without consent is in no round whatever comes between the two."""
        added = _used(index) - _used(self.index())
        if not added:
            self._write_cohort(index)
        write_text(self._index_file, index.model_dump_json(indent=2) + "\n", private=True, lasting=True)
        if added:
            self._write_cohort(index)

    def _write_cohort(self, index: CohortIndex) -> None:
        """Let the trainer read what the index says; a file that says it already stays."""
        text = _cohort_text(index)
        if text is None:
            self._folder.store_cohort.unlink(missing_ok=True)
        elif not self._folder.store_cohort.exists() or self._folder.store_cohort.read_bytes() != text.encode("ascii"):
            CohortDescription.model_validate_json(text)
            write_text(self._folder.store_cohort, text, private=True, lasting=True)


def _used(index: CohortIndex) -> set[str]:
    return {case.case for case in index.cases if case.consented}


def _cohort_text(index: CohortIndex) -> str | None:
    """Return the cohort file of the cases with consent; None without one to train on."""
    used = [case for case in index.cases if case.consented]
    if index.modality is None or not any(case.role == "train" for case in used):
        return None
    names = () if index.contract is None else index.contract.names
    description = {"modality": index.modality, "cases": [_cohort_entry(case, index, names) for case in used]}
    return json.dumps(description, indent=2) + "\n"


def _cohort_entry(case: StoredCase, index: CohortIndex, names: tuple[str, ...]) -> dict[str, object]:
    values: Mapping[str, object] = {
        name: [index.contract.value_of(name)] if index.contract and name in case.annotated else NOT_ANNOTATED
        for name in names
    }
    return {
        "case": case.case,
        "patient": case.pseudonym,
        "image": f"cases/{case.case}/{IMAGE}",
        "labels": f"cases/{case.case}/{LABELS}",
        "role": case.role,
        "mapping": {"values": values},
    }


def _naming_of(mapping: SiteLabelMapping) -> Naming:
    return {
        name: values if isinstance(values, str) else tuple(str(value) for value in values)
        for name, values in mapping.values.items()
    }
