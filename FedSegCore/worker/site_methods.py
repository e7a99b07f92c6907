"""What the module's Federation tab can ask: thin calls into ``federation.site``, no rule of their own."""

import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from FedSegCore.common.progress import Progress
from FedSegCore.worker.methods import Method
from FedSegCore.worker.site_params import (
    AddParams,
    CaseParams,
    CheckParams,
    ConsentParams,
    ControlParams,
    Day,
    FolderParams,
    ImportParams,
    InvitationParams,
    JoinParams,
    JournalParams,
    OfferParams,
    SiteParams,
)
from FedSegCore.worker.site_rows import case_row, finding_row, member_row

if TYPE_CHECKING:
    from FedSegCore.federation.site.case_intake import CaseOffer
    from FedSegCore.federation.site.cohort_index import Consent
    from FedSegCore.federation.site.cohort_store import CohortStore


class SiteMethods:
    """The ``site.*`` methods; keeps the processes it started, so that one that ended is not taken for running."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def table(self) -> dict[str, Method]:
        """Return the methods by name."""
        return {
            "site.state": Method(SiteParams, slow=self._state),
            "site.invitation": Method(InvitationParams, slow=self._invitation),
            "site.join": Method(JoinParams, slow=self._join),
            "site.check": Method(CheckParams, slow=self._check),
            "site.cohort.list": Method(SiteParams, slow=self._list),
            "site.cohort.check": Method(OfferParams, slow=self._check_case),
            "site.cohort.add": Method(AddParams, slow=self._add),
            "site.cohort.folder": Method(FolderParams, slow=self._folder),
            "site.cohort.consent": Method(ConsentParams, slow=self._consent),
            "site.cohort.revoke": Method(CaseParams, slow=self._revoke),
            "site.cohort.remove": Method(CaseParams, slow=self._remove),
            "site.control": Method(ControlParams, slow=self._control),
            "site.journal": Method(JournalParams, slow=self._journal),
            "site.run.start": Method(SiteParams, slow=self._start),
            "site.run.stop": Method(SiteParams, slow=self._stop),
            "site.release": Method(ImportParams, slow=self._release),
        }

    def _state(self, params: SiteParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "looking at the site")
        from FedSegCore.federation.site.folder import SiteFolder
        from FedSegCore.federation.site.state import site_state

        self._started = [child for child in self._started if child.poll() is None]
        told = site_state(params.site)
        member = None if told.state == "not-a-member" else member_row(SiteFolder.open(params.site))
        return {
            **asdict(told),
            "until": told.until.isoformat() if told.until else None,
            "member": member,
            # the journal outlives the site
            "journal_changed": SiteFolder(params.site.absolute()).journal.changed(),
        }

    def _invitation(self, params: InvitationParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "reading the invitation")
        from FedSegCore.federation.invitation import read_invitation
        from FedSegCore.federation.site.joining import federation_words
        from FedSegCore.federation.site.policy import SitePolicy, policy_words

        read, policy = read_invitation(params.invitation), SitePolicy()
        return {
            "federation": read.federation,
            "addresses": list(read.addresses),
            "fingerprint": read.fingerprint,
            "words": federation_words(read, policy),
            "policy": policy_words(policy),
            "expires": read.expires.isoformat(),
        }

    def _join(self, params: JoinParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "making the site's key")
        from FedSegCore.federation.site.joining import join

        joined = join(
            params.site,
            params.invitation,
            params.name,
            coordinator_fingerprint=params.coordinator_fingerprint,
            new_key=params.new_key,
        )
        return {
            "fingerprint": joined.fingerprint,
            "request": str(joined.request_file),
            "compared": joined.compared,
            "again": joined.again,
        }

    def _check(self, params: CheckParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.federation.site.folder import SiteFolder
        from FedSegCore.federation.site.preflight import first_failure, preflight
        from FedSegCore.federation.site.preflight_machine import Needs

        found = preflight(SiteFolder.open(params.site), progress, Needs(timeout_s=params.timeout_s))
        return {"findings": [asdict(finding) for finding in found], "ready": first_failure(found) is None}

    def _list(self, params: SiteParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "looking at the cases")
        from FedSegCore.common.errors import BadInputError

        store = _store(params.site)
        try:
            structures = list(store.contract().names)
        except BadInputError as error:
            if error.code != "store.no-contract":
                raise
            structures = []
        index = store.index()
        used = [case for case in index.cases if case.consented]
        return {
            "modality": index.modality,
            "structures": structures,
            "naming": index.naming,
            "cases": [case_row(store, case) for case in index.cases],
            "trained": sum(case.role == "train" for case in used),
            "scored": sum(case.role == "validation" for case in used),
        }

    def _check_case(self, params: OfferParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.1, "checking the case")
        checked = _store(params.site).check(_offer(params))
        return {
            "findings": [finding_row(found) for found in checked.findings],
            "refused": [found.code for found in checked.refused],
            "role": checked.role,
            "modality": checked.image.modality,
        }

    def _add(self, params: AddParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.1, "checking and copying the case")
        store = _store(params.site)
        return case_row(store, store.add(_offer(params), _consent(params.consent_by, params.consent_given)))

    def _folder(self, params: FolderParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.federation.site.case_folder import add_folder
        from FedSegCore.federation.site.case_intake import CaseOffer

        like = CaseOffer(Path(), Path(), "", params.modality, params.naming)
        consent = _consent(params.consent_by, params.consent_given)
        taken = add_folder(_store(params.site), params.folder, like, consent, progress)
        return {"added": len(taken.added), "left_out": [asdict(one) for one in taken.left_out]}

    def _consent(self, params: ConsentParams, _progress: Progress) -> dict[str, Any]:
        store = _store(params.site)
        return case_row(store, store.consent(params.case, params.by, params.given))

    def _revoke(self, params: CaseParams, _progress: Progress) -> dict[str, Any]:
        store = _store(params.site)
        return case_row(store, store.revoke(params.case))

    def _remove(self, params: CaseParams, _progress: Progress) -> None:
        _store(params.site).remove(params.case)

    def _control(self, params: ControlParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.federation.site import control
        from FedSegCore.federation.site.folder import SiteFolder

        folder = SiteFolder.open(params.site)
        match params.what:
            case "pause":
                control.pause(folder)
            case "resume":
                control.resume(folder)
            case "leave":
                control.leave(folder)
            case "forget":
                control.forget(folder)
            case "set":
                control.change(folder, **params.settings)
        return self._state(SiteParams(site=params.site), progress)

    def _journal(self, params: JournalParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "reading the journal")
        from FedSegCore.federation.site.folder import SiteFolder
        from FedSegCore.federation.site.journal_words import LEFT, entry_words

        # it outlives the site, which therefore need not be there
        journal = SiteFolder(params.site.absolute()).journal
        verified = journal.verify()
        lines = list(journal.lines()) if verified.whole else []
        wanted = [line for line in lines if not params.only_left or line.entry.kind in LEFT]
        rows = []
        for line in reversed(wanted[-params.last :]):
            what, details = entry_words(line.entry)
            row = {"number": line.number, "time": line.time, "kind": line.entry.kind, "what": what, "details": details}
            rows.append(row)
        return {"rows": rows, "total": len(wanted), "verified": asdict(verified)}

    def _start(self, params: SiteParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.federation.site import background
        from FedSegCore.federation.site.folder import SiteFolder

        self._started.append(background.start(SiteFolder.open(params.site), progress))
        return self._state(params, progress)

    def _stop(self, params: SiteParams, progress: Progress) -> dict[str, Any]:
        from FedSegCore.federation.site import background
        from FedSegCore.federation.site.folder import SiteFolder

        background.stop(SiteFolder.open(params.site), progress)
        return self._state(params, progress)

    def _release(self, params: ImportParams, progress: Progress) -> dict[str, Any]:
        progress.update(0.0, "checking the release")
        from FedSegCore.federation.site.trust import trusted_release_keys
        from FedSegCore.models.export import import_release

        taken = import_release(params.source, params.releases, trusted_release_keys(params.site, None))
        return {"release": taken.id, "signer": taken.signer, "trusted": taken.trusted}


def _consent(by: str | None, given: Day) -> "Consent | None":
    from FedSegCore.federation.site.cohort_index import consent_of

    return None if by is None else consent_of(by, given)


def _store(site: Path) -> "CohortStore":
    from FedSegCore.federation.site.cohort_store import CohortStore
    from FedSegCore.federation.site.folder import SiteFolder

    return CohortStore(SiteFolder.open(site))


def _offer(params: OfferParams) -> "CaseOffer":
    from FedSegCore.federation.site.case_intake import CaseOffer

    return CaseOffer(
        params.image,
        params.labels,
        params.patient,
        params.modality,
        params.naming,
        accept=params.accept,
        title=params.title,
    )
