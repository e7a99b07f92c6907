"""From invitation to a finished round and its release in Segment, against a real SuperLink on loopback."""

import os
import sys

import numpy as np
import pytest
from federation_helpers_desktop import FederationPanel, allow_few_patients, serve
from FedSegSlicerLib.Settings import RUNTIME, writeSetting
from panel_helpers import Ticks
from scene_helpers import keep_pictures, wait_until

pytestmark = [pytest.mark.slicer, pytest.mark.slow]


@pytest.fixture
def coordinator(tmp_path):
    process = serve(tmp_path)
    yield tmp_path
    (tmp_path / "end").touch()
    process.terminate()
    process.wait(30)


@pytest.mark.timeout(400)
@pytest.mark.skipif(os.name == "nt", reason="the coordinator is ended by a signal")
def test_from_invitation_to_a_round_that_goes_on_without_slicer(coordinator):
    root, site = coordinator, coordinator / "site"
    writeSetting(RUNTIME, sys.executable)
    panel = FederationPanel(site)
    try:
        wait_until((root / "invitation.json").exists, 90.0)
        panel.join(root / "invitation.json")
        panel.tab.saveRequestTo(root / "request.json")
        allow_few_patients(site)
        _add_cases(panel, root)
        panel.ui.fedRunButton.click()
        wait_until(lambda: panel.logic.facts.state == "connected", 90.0)
        panel.close()  # Slicer is closed, and started again
        panel = FederationPanel(site)
        assert panel.logic.facts.isRunning
        assert panel.ui.fedRunButton.text == "Stop"
        ticks = Ticks(20)
        ticks.begin()
        (root / "go").touch()
        wait_until(lambda: panel.ui.fedRoundTable.rowCount == 1, 120.0)
        ticks.end()
        assert len(ticks.busy) > 50
        assert np.median(ticks.gaps) < 0.1
        assert max(ticks.busy) < 0.1  # the panel stays alive while a round goes on
        (row,) = panel.rows(panel.ui.fedRoundTable)
        assert row[0] == "1 of 1"
        assert all(0.0 <= float(number) < 10.0 for number in row[1:])
        wait_until(lambda: panel.ui.noticeLabel.text, 90.0)
        assert "New model from your federation:</b> tiny-CT-v1" in panel.ui.noticeLabel.text
        assert panel.ui.releasesPathEdit.currentPath == str(site / "releases")
        wait_until(lambda: panel.widget.segmentTab._choices.releases)
        assert [release.id for release in panel.widget.segmentTab._choices.releases] == ["tiny-CT-v1"]
        assert panel.ui.fedReleaseLabel.text == "tiny-CT-v1 is now in Segment."
        wait_until(lambda: panel.logic.facts.state == "finished", 30.0)
        panel.idle()
        panel.ui.fedJournalCollapsibleButton.collapsed = False
        told = panel.journal()
        assert told[0].startswith("left: round 1: ")
        panel.ui.fedLeftCheckBox.setChecked(False)  # not only what left, but also what came
        told = panel.journal()
        assert any(row.startswith("release received: weights ") for row in told)
        panel.picture(root / "federation-7-round.png")
        if os.environ.get("FEDSEG_PICTURES"):
            (root / "pictures").mkdir()
            (root / "federation-7-round.png").rename(root / "pictures" / "federation-7-round.png")
            keep_pictures(root / "pictures")
    finally:
        if panel.logic.facts is not None and panel.logic.facts.isRunning:
            panel.idle()
            panel.ui.fedRunButton.click()
            wait_until(lambda: not panel.logic.facts.isRunning, 60.0)
        panel.close()


def _add_cases(panel, root):
    """Add three patients' files by the worker, as cases of the scene are."""
    done = []
    for number in range(3):
        images = root / "images"
        params = {
            "site": str(root / "site"),
            "image": str(images / f"image{number}.nii.gz"),
            "labels": str(images / f"labels{number}.nii.gz"),
            "patient": f"p{number}",
            "modality": "CT",
            "accept": ["case.intensities", "case.size"],
            "consent_by": "Dr. House",
        }
        panel.logic.session.request("site.cohort.add", params, done.append, done.append)
    wait_until(lambda: len(done) == 3)
    assert [case["role"] for case in done] == ["train", "train", "validation"]
    panel.logic.listCases()
    panel.idle()
