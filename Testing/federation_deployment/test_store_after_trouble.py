"""A site's store when its journal is broken or its process was killed: no copy of a patient stays that nobody sees."""

import errno
import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path

import pytest
from own_cases import AGREED, offer, write_given

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.files import write_text
from FedSegCore.federation.process_group import child_environment
from FedSegCore.federation.site import cohort_store
from FedSegCore.federation.site.cohort_file import read_cohort_file
from FedSegCore.federation.site.cohort_store import CohortStore
from FedSegCore.federation.site.folder import SiteFolder

KILLED = """
import os, sys
from pathlib import Path
from own_cases import offer
from FedSegCore.federation.site import cohort_store
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal import Journal
from FedSegCore.phantoms.torso import TORSO_CONTRACT

def die(*_arguments, **_more):
    os._exit(9)

if sys.argv[3] == "picture":
    cohort_store.overlay_png = die
else:
    Journal.append = die
cohort_store.CohortStore(SiteFolder(Path(sys.argv[1])), TORSO_CONTRACT).add(offer(Path(sys.argv[2]), patient="p2"))
"""


def copies(site: SiteFolder) -> set[str]:
    return {path.name for path in (site.store / "cases").iterdir()}


def cut_journal(site: SiteFolder) -> bytes:
    """Damage the journal; returns what to mend it with."""
    (file,) = (site.path / "journal").glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    return whole


def mend_journal(site: SiteFolder, whole: bytes) -> None:
    (file,) = (site.path / "journal").glob("*.jsonl")
    file.write_bytes(whole)


def test_a_case_that_the_journal_cannot_note_can_be_removed_later(empty_site, store: CohortStore, given) -> None:
    case = store.add(offer(given), AGREED)
    whole = cut_journal(empty_site)
    with pytest.raises(BadInputError, match=r"journal\.broken"):
        store.remove(case.case)
    assert copies(empty_site) == {case.case}
    mend_journal(empty_site, whole)
    store.remove(case.case)
    assert copies(empty_site) == set()
    assert [line.entry.kind for line in empty_site.journal.lines()][-1] == "case-removed"


def test_a_case_that_the_journal_cannot_note_is_not_taken_in(empty_site, store: CohortStore, given) -> None:
    cut_journal(empty_site)
    with pytest.raises(BadInputError, match=r"journal\.broken"):
        store.add(offer(given))
    assert copies(empty_site) == set()
    assert store.index().cases == ()


@pytest.mark.parametrize("where", ["picture", "journal"])
def test_what_a_killed_process_left_goes_with_the_next_change(
    empty_site: SiteFolder, store: CohortStore, given: Path, tmp_path: Path, where: str
) -> None:
    case = store.add(offer(given))
    write_given(tmp_path / "other", seed=9)
    environment = child_environment(tmp_path, 1)
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment["PYTHONPATH"]])
    arguments = (str(empty_site.path), str(tmp_path / "other"), where)
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False)
    assert done.returncode == 9
    assert len(copies(empty_site)) == 2
    store.consent(case.case, "Dr Grey")
    assert copies(empty_site) == {case.case}
    assert store.check_stored(case.case) == ()


def used(site: SiteFolder) -> set[str]:
    return {case.case for case in read_cohort_file(site.cohort).cases} if site.cohort.exists() else set()


@pytest.mark.parametrize("fails", ["index.json", "cohort.json"])
def test_nothing_is_trained_on_whose_consent_was_not_kept(
    empty_site: SiteFolder, store: CohortStore, given: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """The disk is full between the two files of a consent, then of one that is taken back."""
    case = store.add(offer(given)).case

    def write(target: Path, text: str, **how: bool) -> None:
        if target.name == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(target, text, **how)

    with monkeypatch.context() as patched:
        patched.setattr(cohort_store, "write_text", write)
        with pytest.raises(OSError, match="No space"):
            store.consent(case, "Dr Grey")
    assert used(empty_site) == set()
    if fails == "index.json":
        store.consent(case, "Dr Grey")
    else:
        with pytest.raises(UsageError, match=r"store\.consent"):
            store.consent(case, "Dr Grey")
    assert used(empty_site) == {case}
    with monkeypatch.context() as patched:
        patched.setattr(cohort_store, "write_text", write)
        with pytest.raises(OSError, match="No space") if fails == "index.json" else nullcontext():
            store.revoke(case)
    assert used(empty_site) == set()


def test_who_finds_a_case_used_without_consent_can_stop_it(
    empty_site: SiteFolder, store: CohortStore, given: Path
) -> None:
    """As former versions left it where the disk was full when a consent was noted."""
    case = store.add(offer(given), AGREED).case
    trained_on = empty_site.cohort.read_bytes()
    store.revoke(case)
    empty_site.cohort.write_bytes(trained_on)
    with pytest.raises(UsageError, match=r"store\.no-consent"):
        store.revoke(case)
    assert used(empty_site) == set()


def test_copies_stay_where_the_index_was_lost(empty_site: SiteFolder, store: CohortStore, given: Path) -> None:
    case = store.add(offer(given))
    index = empty_site.store / "index.json"
    kept = index.read_bytes()
    index.unlink()
    with pytest.raises(UsageError, match=r"store\.no-such-case"):
        store.remove(case.case)
    index.write_bytes(kept)
    assert store.check_stored(case.case) == ()


@pytest.mark.parametrize("wrong", ["", "  ", "x" * 257])
def test_a_case_needs_an_id_of_its_patient(store: CohortStore, given: Path, wrong: str) -> None:
    for ask in (store.check, store.add):
        with pytest.raises(BadInputError, match=r"store\.patient"):
            ask(offer(given, patient=wrong))


@pytest.mark.parametrize("wrong", ["", "  ", "x" * 129])
def test_a_consent_needs_a_name(empty_site: SiteFolder, store: CohortStore, given: Path, wrong: str, fedseg) -> None:
    files = (given / "image.nrrd", given / "labels.seg.nrrd")
    order = ("site", "cohort", "add", empty_site.path, *files, "--patient", "p", "--consent-by", wrong)
    refused = fedseg(*order)
    assert (refused.code, "store.consent-name" in refused.err) == (2, True)
    assert store.index().cases == ()
    case = store.add(offer(given))
    with pytest.raises(UsageError, match=r"store\.consent-name"):
        store.consent(case.case, wrong)
    assert not store.case(case.case).consented


def test_a_consent_is_not_given_on_a_day_to_come(
    empty_site: SiteFolder, store: CohortStore, given: Path, fedseg
) -> None:
    tomorrow = date.today() + timedelta(days=1)
    files = (given / "image.nrrd", given / "labels.seg.nrrd")
    order = ("site", "cohort", "add", empty_site.path, *files, "--patient", "p", "--consent-by", "Dr. House")
    refused = fedseg(*order, "--on", str(tomorrow))
    assert (refused.code, "store.consent-day" in refused.err) == (2, True), refused.err
    assert store.index().cases == ()
    case = store.add(offer(given))
    with pytest.raises(UsageError, match=r"store\.consent-day"):
        store.consent(case.case, "Dr. House", tomorrow)
    assert not store.case(case.case).consented
    assert store.consent(case.case, "Dr. House", date.today()).consented
