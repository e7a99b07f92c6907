"""The journal: whole, or found out; nothing of a patient in it."""

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import stat
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import (
    BundleApproved,
    CaseAdded,
    CaseRemoved,
    CohortRead,
    ConsentGiven,
    ConsentRevoked,
    ControlChanged,
    Enrolled,
    Entry,
    GinChosen,
    GinUsed,
    Healed,
    Introduced,
    InvitationAccepted,
    Left,
    Line,
    OrderReceived,
    PolicyChanged,
    Refused,
    ReleaseReceived,
    ReleaseUsed,
    UsualTold,
    parse_line,
)

A, B = "a" * 64, "b" * 64
ENTRIES: list[Entry] = [
    Enrolled(key_sha256=A, authority_sha256=B),
    CohortRead(modality="CT", training_cases=6, validation_cases=2, set_aside=1, cohort_sha256=A),
    Introduced(training_cases=6, validation_cases=2, bytes=300, sha256=B),
    OrderReceived(
        round_number=1, rounds=2, modality="CT", tensors=3, bytes=40, steps=None, epochs=1, batch_size=2
    ),
    Left(round_number=1, tensors=3, bytes=500, sha256=A, examples=6, scores=2, suppressed=False, norm=0.5, clipped=True,
         noise_multiplier=1.0, delta=1e-5, epsilon=2.5),
    Refused(code="gate.norm", round_number=2, measured=1e9, allowed=10.0),
    ReleaseUsed(modality="CT", weights_sha256=B),
]  # fmt: skip

MORE_ENTRIES: list[Entry] = [
    Healed(bytes=3, sha256=A),
    GinChosen(own=True, alpha_low=0.1, alpha_high=0.9, layers=4, kernel_sizes=(1, 3), per_batch=False),
    GinUsed(round_number=2, own=True),
    UsualTold(round_number=1, volumes=3, look=True, fewest_patients=5),
    ReleaseReceived(weights_sha256=B, bytes=5),
    BundleApproved(sha256=A, approved=True),
    InvitationAccepted(invitation_sha256=A, coordinator_key_sha256=B, compared=True),
    CaseAdded(case="0123456789abcdef"),
    CaseRemoved(case="0123456789abcdef"),
    ConsentGiven(case="0123456789abcdef"),
    ConsentRevoked(case="0123456789abcdef"),
    ControlChanged(what="paused"),
    PolicyChanged(policy_sha256=A, minimum_cases=5),
]


def journal(folder: Path, **options) -> Journal:
    return Journal(folder / "journal", clock=lambda: datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC), **options)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "journal").glob("journal-*.jsonl"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    kept = journal(tmp_path)
    for entry in ENTRIES:
        kept.append(entry)
    return tmp_path


def test_every_kind_of_entry_is_kept_in_order_as_it_was(written: Path):
    lines = list(journal(written).lines())
    assert [line.entry for line in lines] == ENTRIES
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert {line.time for line in lines} == {"2026-03-01T12:00:05Z"}
    checked = journal(written).verify()
    assert (checked.whole, checked.entries, checked.unfinished) == (True, 7, False)


def test_the_chain_can_be_checked_without_our_code(written: Path):
    previous = "0" * 64
    for raw in files(written)[0].read_bytes().splitlines():
        line = json.loads(raw)
        told = line.pop("hash")
        canonical = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(canonical).hexdigest() == told
        assert line["previous"] == previous
        previous = told


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_nobody_else_can_read_it(written: Path):
    folder = written / "journal"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 3


def test_a_journal_that_never_began_is_whole_and_empty(tmp_path: Path):
    assert journal(tmp_path).verify().whole
    assert list(journal(tmp_path).lines()) == []


def test_a_change_of_any_byte_is_found(written: Path):
    for file in (*files(written), written / "journal" / "head.json"):
        good = file.read_bytes()
        for place in range(len(good)):
            for other in (good[place] ^ 1, ord("\n")) if place % 5 == 0 else (good[place] ^ 1,):
                if other != good[place]:
                    file.write_bytes(good[:place] + bytes([other]) + good[place + 1 :])
                    assert not journal(written).verify().whole, (file.name, place, other)
        file.write_bytes(good)
    assert journal(written).verify().whole


def test_lines_removed_doubled_swapped_or_cut_off_are_found_where_they_are(written: Path):
    file = files(written)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    for changed, row in (
        (lines[1:], 1),
        (lines[:2] + lines[3:], 3),
        (lines[:3] + lines[2:], 4),
        ([lines[1], lines[0], *lines[2:]], 1),
        (lines[:-1], 6),
        ([*lines[:3], b"\n", *lines[3:]], 4),
    ):
        file.write_bytes(b"".join(changed))
        checked = journal(written).verify()
        assert (checked.whole, checked.file, checked.line) == (False, file.name, row)
        with pytest.raises(BadInputError, match=r"journal\.broken"):
            list(journal(written).lines())


@pytest.mark.parametrize("cut", [1, 20])
def test_nothing_is_added_to_a_journal_whose_end_was_changed(written: Path, cut: int):
    file = files(written)[0]
    for damaged in (file.read_bytes()[:-cut], file.read_bytes()[:-cut] + b"?" * cut):
        file.write_bytes(damaged)
        with pytest.raises(BadInputError, match=r"journal\.broken"):
            journal(written).append(ENTRIES[0])
        assert file.read_bytes() == damaged


def test_it_goes_on_in_numbered_files_with_one_chain(tmp_path: Path):
    kept = journal(tmp_path, max_file_bytes=600)
    for _ in range(3):
        for entry in ENTRIES:
            kept.append(entry)
    names = [path.name for path in files(tmp_path)]
    assert len(names) > 3
    assert names == [f"journal-{number:06d}.jsonl" for number in range(1, len(names) + 1)]
    assert kept.verify().entries == 21
    assert [line.entry for line in kept.lines()] == ENTRIES * 3
    hidden = tmp_path / "hidden"
    for file in files(tmp_path):
        file.rename(hidden)
        assert not kept.verify().whole, file.name
        hidden.rename(file)
    assert kept.verify().whole


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_an_entry_cut_off_by_a_crash_is_told_by_the_next(tmp_path: Path, share: float, rotated: bool):
    """The bytes of an unfinished line, from one to all but its end of line, stand at the end of the file."""
    kept = journal(tmp_path, max_file_bytes=1 if rotated else 10**6)
    kept.append(ENTRIES[0])
    last = next(kept.lines())
    unfinished = Line.make(2, last.time, last.hash, ENTRIES[1]).to_bytes()
    torn = unfinished[: max(1, round(share * len(unfinished)))]
    place = files(tmp_path)[0].with_name("journal-000002.jsonl") if rotated else files(tmp_path)[0]
    with place.open("ab") as file:
        file.write(torn)
    checked = kept.verify()
    assert (checked.whole, checked.unfinished, checked.entries) == (True, True, 1)

    kept.append(ENTRIES[2])

    checked = kept.verify()
    assert (checked.whole, checked.unfinished, checked.entries) == (True, False, 3)
    healed = [line.entry for line in kept.lines()][1]
    assert healed == Healed(bytes=len(torn) + 2, sha256=hashlib.sha256(torn + b"#\n").hexdigest())
    # what stands before the healing line is part of the proof
    data = place.read_bytes()
    start = data.index(torn)
    place.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])
    assert not kept.verify().whole


def test_a_crash_while_healing_and_one_before_the_head_are_healed_too(tmp_path: Path):
    kept = journal(tmp_path)
    kept.append(ENTRIES[0])
    head = tmp_path / "journal" / "head.json"
    before = head.read_bytes()
    kept.append(ENTRIES[1])
    head.write_bytes(before)
    assert kept.verify().whole
    with files(tmp_path)[0].open("ab") as file:
        file.write(b'{"entry":#\n{"entry":{"by')
    kept.append(ENTRIES[2])
    assert kept.verify() == kept.verify().__class__(4, True)


def test_it_goes_on_under_windows_rule_of_line_ends(tmp_path: Path, windows_lines: None):
    kept = journal(tmp_path)
    for number, entry in enumerate(ENTRIES, 1):
        kept.append(entry)
        assert kept.verify() == kept.verify().__class__(number, True)
    assert b"\r" not in b"".join(path.read_bytes() for path in (tmp_path / "journal").iterdir())


def test_a_head_that_a_former_version_wrote_on_windows_is_taken(written: Path):
    head = written / "journal" / "head.json"
    good = head.read_bytes()
    head.write_bytes(good.replace(b"\n", b"\r\n"))
    assert journal(written).verify().whole
    assert len(list(journal(written).lines())) == len(ENTRIES)
    for wrong in (good + b"\r\n", good.replace(b"\n", b"\r"), good.replace(b"\n", b"\r\r\n"), b"\r\n"):
        head.write_bytes(wrong)
        assert not journal(written).verify().whole, wrong
    head.write_bytes(good.replace(b"\n", b"\r\n"))
    journal(written).append(ENTRIES[0])
    assert b"\r" not in head.read_bytes()
    assert journal(written).verify().whole


@pytest.mark.parametrize(("full", "rotated", "torn"), [
    ("head.json", False, b""), ("head.json", True, b""), ("head.json", False, b'{"entry":{"by'),
    ("journal-000001.jsonl", False, b""), ("journal-000002.jsonl", True, b""),
])  # fmt: skip
def test_a_disk_that_was_full_for_a_while_breaks_nothing(tmp_path: Path, monkeypatch, full: str, rotated, torn: bytes):
    """The line fits and its head does not, or the line does not fit; whatever was refused leaves nothing behind."""
    kept = journal(tmp_path, max_file_bytes=1 if rotated else 10**6)
    kept.append(ENTRIES[0])
    with files(tmp_path)[0].open("ab") as file:
        file.write(torn)
    before = files(tmp_path)[0].read_bytes()
    synced = os.fsync

    def sync(descriptor: int) -> None:
        synced(descriptor)
        if any(os.path.samestat(os.fstat(descriptor), path.stat()) for path in (tmp_path / "journal").rglob(full)):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        for _ in range(3):
            with pytest.raises(CannotDoHereError, match=r"journal\.unwritable"):
                kept.append(ENTRIES[1])
            assert b"".join(path.read_bytes() for path in files(tmp_path)) == before
            assert (kept.verify().whole, kept.verify().entries) == (True, 1)
    kept.append(ENTRIES[2])
    assert kept.verify() == kept.verify().__class__(3 if torn else 2, True)


def _append_many(folder: Path) -> None:
    for _ in range(10):
        journal(folder).append(ENTRIES[0])


def test_two_processes_write_one_chain(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60.0)
    assert journal(tmp_path).verify() == journal(tmp_path).verify().__class__(20, True)


def test_a_journal_that_cannot_be_written_is_a_coded_error(tmp_path: Path):
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(CannotDoHereError):
        journal(tmp_path).append(ENTRIES[0])


@settings(max_examples=60)
@given(data=st.data())
def test_whatever_stands_in_the_files_is_told_or_coded(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzzed")
    kept = journal(folder)
    for entry in ENTRIES[:3]:
        kept.append(entry)
    good = files(folder)[0].read_bytes()
    junk = st.binary(max_size=80) | st.sampled_from(good.splitlines(keepends=True))
    content = b"".join(data.draw(st.lists(junk, max_size=6)))
    for name in data.draw(st.lists(st.sampled_from(["journal-000001.jsonl", "journal-000002.jsonl", "head.json"]))):
        (folder / "journal" / name).write_bytes(content)
    checked = kept.verify()
    with nullcontext() if checked.whole else pytest.raises(BadInputError, match=r"journal\.broken"):
        assert len(list(kept.lines())) == checked.entries
    # a break in the middle is not seen when something is added, but stays a break
    with contextlib.suppress(BadInputError):
        kept.append(ENTRIES[3])
    assert kept.verify().whole is checked.whole


PLANTED = [
    "Doe^Jane",
    "Jane Doe",
    "/data/patients/doe_jane/ct.nii.gz",
    r"C:\patients\doe",
    "(0010,0010)",
    "1.2.840.113619.2.55.3",
    "PatientName=Doe",
    "1970-01-31",
    "doe",
]


def test_every_kind_of_entry_is_tried_below():
    assert {type(entry) for entry in (*ENTRIES, *MORE_ENTRIES)} == set(get_args(Entry))


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("entry", [*ENTRIES, *MORE_ENTRIES], ids=lambda entry: entry.kind)
def test_no_field_of_any_entry_takes_what_tells_a_patient(entry: Entry, planted: str):
    for field in entry.__class__.model_fields:
        with pytest.raises(ValidationError):
            entry.__class__.model_validate({**entry.model_dump(), field: planted})
    with pytest.raises(ValidationError):
        entry.__class__.model_validate({**entry.model_dump(), "note": planted})


def test_a_line_is_read_only_as_it_was_written(written: Path):
    raw = files(written)[0].read_bytes().splitlines()[0]
    assert parse_line(raw) is not None
    for other in (raw.replace(b":", b": ", 1), raw + b" ", raw.replace(b'"number":1', b'"number":1.0'), b"", b"[]"):
        assert parse_line(other) is None
