"""The journal as the Federation tab shows it: nothing that left is ever missing, and nothing false is said of it."""

import time

import pytest
from federation_helpers_desktop import add_to_journal
from FedSegSlicerLib.FederationWords import journalWords, localMinute, nothingLeft
from scene_helpers import wait_until

pytestmark = pytest.mark.slicer

NOTHING = "Nothing has left this computer."
TOLD = {"kind": "usual-told", "round_number": 1, "volumes": 2, "look": False, "fewest_patients": 7}


def test_what_leaves_later_appears_and_a_changed_journal_says_so(open_federation, invitation, tmp_path):
    site = tmp_path / "site"
    panel = open_federation(site)
    panel.join(invitation)
    ui = panel.ui
    ui.fedJournalCollapsibleButton.collapsed = False
    assert panel.journal() == [NOTHING]
    add_to_journal(site, TOLD)  # as a round does, while the tab is shown
    wait_until(lambda: panel.journal() != [NOTHING])
    assert panel.journal() == ["usual told: round 1: mean and spread of 2 structures' volumes, over 7 patients or more"]
    assert ui.fedJournalTable.item(0, 0).text()[:10] == time.strftime("%Y-%m-%d")
    file = next((site / "journal").glob("*.jsonl"))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"volumes":2', b'"volumes":1'))
    ui.fedJournalCollapsibleButton.collapsed = True
    ui.fedJournalCollapsibleButton.collapsed = False  # verified each time it is shown
    wait_until(lambda: "The journal was changed" in ui.fedJournalLabel.text)
    assert ui.fedJournalTable.isHidden()
    file.write_bytes(whole)
    ui.fedJournalButton.click()
    assert (ui.fedJournalButton.enabled, ui.fedJournalButton.toolTip) == (False, "The journal is being read.")
    wait_until(lambda: "The journal is whole: 3 entries." in ui.fedJournalLabel.text)
    assert ui.fedJournalTable.isVisible()
    file.write_bytes(whole.replace(b'"volumes":2', b'"volumes":1'))
    ui.tabWidget.setCurrentWidget(ui.segmentTab)
    ui.tabWidget.setCurrentWidget(ui.federationTab)
    wait_until(lambda: "The journal was changed" in ui.fedJournalLabel.text)


VERIFIED = {"entries": 3, "whole": True, "unfinished": False, "file": "", "line": 0, "reason": ""}


@pytest.mark.parametrize(
    ("verified", "total", "only_left", "said"),
    [
        ({}, 0, True, True),
        ({}, 1, True, False),
        ({}, 0, False, False),
        ({"whole": False}, 0, True, False),
        ({"unfinished": True}, 0, True, False),
        ({"entries": 0}, 0, True, False),
    ],
)
def test_that_nothing_left_is_said_of_a_whole_and_complete_journal_only(verified, total, only_left, said):
    told = {"rows": [], "total": total, "verified": {**VERIFIED, **verified}}
    assert nothingLeft(told, only_left) is said


def test_the_words_tell_what_is_not_shown():
    told = {"rows": [{}] * 2, "total": 2345, "verified": {**VERIFIED, "entries": 9000}}
    assert journalWords(told) == "The journal is whole: 9000 entries. The newest 2 of 2345 are shown."
    gone = {"rows": [], "total": 0, "verified": {**VERIFIED, "entries": 0}}
    assert "moved away, or deleted" in journalWords(gone)
    torn = {"rows": [], "total": 0, "verified": {**VERIFIED, "unfinished": True}}
    assert "cut off by a crash" in journalWords(torn)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set")
def test_times_are_those_of_this_computers_clock(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert localMinute("2026-03-01T23:30:59Z") == "2026-03-02 05:00"
    finally:
        monkeypatch.undo()
        time.tzset()
