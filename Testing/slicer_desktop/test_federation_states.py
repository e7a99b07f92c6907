"""Every state of a member, as the site's own processes write it into its files, in words and as a picture."""

import json
import os
import time

import psutil
import pytest
from panel_helpers import check_nothing_is_clipped
from scene_helpers import keep_pictures, wait_until

pytestmark = pytest.mark.slicer

PROBLEM = {
    "code": "policy.spacing",
    "what": "The server asks for voxels of 0.2 mm, this site allows 0.3 mm or more.",
    "remedy": "Ask the coordinator for a coarser spacing, or lower the limit in the site's policy.json.",
}

STATES = {
    "request-sent": ({"processes": "connecting", "was_connected": False}, {}, 0, "Waiting to be admitted"),
    "admitted": ({"processes": "ended"}, {}, 0, "it is not running"),
    "connected": ({}, {}, 0, "no round has begun yet"),
    "waiting": ({}, {}, 2, "Waiting for 2 more sites"),
    "training": ({}, {"state": "training", "round": 3, "rounds": 5, "fraction": 0.4}, 0, "Training round 3 of 5"),
    "answered": ({}, {"state": "idle", "round": 3, "rounds": 5}, 0, "the other sites are awaited"),
    "finished": ({}, {"state": "idle", "round": 5, "rounds": 5}, 0, "All 5 rounds are done"),
    "problem": ({}, {"state": "idle", "round": 3, "rounds": 5, "problem": PROBLEM}, 0, "asks for voxels of 0.2 mm"),
}


def write_state(site, status, progress, missing):
    """Write what the site's processes would have written, with this process for theirs."""
    me = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    told = {**me, "processes": "connected", "was_connected": True, "last_message": time.time(), **status}
    (site / "status.json").write_text(json.dumps(told))
    run = site / "run"
    run.mkdir(exist_ok=True)
    (run / "progress.json").write_text(json.dumps({"time": time.time() - 60.0, **progress}))
    (run / "notice.json").write_text(json.dumps({"missing": missing, "time": time.time()}))


def write_rounds(site, number):
    """Write the records of so many rounds."""
    rows = [
        {
            "time": time.time(),
            "round_number": n,
            "rounds": 5,
            "loss": 0.9 / n,
            "dice": {"liver": 0.2 * n, "spleen": 0.1 * n},
            "cases": 2,
        }
        for n in range(1, number + 1)
    ]
    (site / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def site_in(folder):
    """The site's folder, by a name that may stand in a picture."""
    return folder / "liver-study" / "site"


@pytest.fixture
def panel(open_federation, invitation, tmp_path):
    """The tab of a site that has joined."""
    site_in(tmp_path).parent.mkdir()
    made = open_federation(site_in(tmp_path))
    made.join(invitation)
    return made


def test_every_state_is_told_in_words_and_has_no_clipped_text(panel, tmp_path):
    site, pictures = site_in(tmp_path), tmp_path / "pictures"
    pictures.mkdir()
    for name, (status, progress, missing, words) in STATES.items():
        write_state(site, status, progress, missing)
        write_rounds(site, progress.get("round", 0) - (name == "training"))
        panel.logic.look()
        wait_until(lambda words=words: words in panel.ui.fedStateLabel.text)
        panel.idle()
        panel.own.resize(440, 900)
        panel.picture(pictures / f"federation-state-{name}.png")
        check_nothing_is_clipped(panel)
        assert panel.ui.fedRunButton.text == ("Start" if name == "admitted" else "Stop")
        assert not panel.ui.fedMessageLabel.isVisible() or name == "request-sent"  # what joining told is no news
        assert (PROBLEM["remedy"][:30] in panel.ui.fedStateLabel.text) == (name == "problem")
        assert panel.ui.fedRequestCollapsibleButton.isVisible() == (name == "request-sent")
    keep_pictures(pictures)
    panel.ui.fedAddCollapsibleButton.collapsed = False
    assert panel.ui.fedFolderButton.enabled
    panel.tab.cohort.addFolder(str(pictures))
    wait_until(lambda: "cohort.folder" in panel.ui.fedMessageLabel.text)
    assert "no image has a segmentation beside it" in panel.ui.fedMessageLabel.text
