"""Segmenting from a script inside Slicer, as the module's page shows it."""

import re
import sys
from pathlib import Path

import pytest
import slicer
from FedSegSlicerLib.Errors import UserError
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.Settings import RELEASES_FOLDER, RUNTIME, writeSetting
from scene_helpers import load_volume, wait_until

pytestmark = pytest.mark.slicer
PAGE = Path(__file__).resolve().parents[2] / "docs" / "slicer-module.md"


def test_the_snippet_of_the_page_runs(releases, patients, capsys):
    snippet = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "/folder/of/models" in snippet
    writeSetting(RUNTIME, sys.executable)
    volume = load_volume(patients["CT"])
    names = {"slicer": slicer, "volumeNode": volume}
    exec(compile(snippet.replace("/folder/of/models", str(releases)), str(PAGE), "exec"), names)
    outcome = names["outcome"]
    assert outcome.node is findResult(volume)
    assert (outcome.release, outcome.modality) == ("tiny-CT-v2", "CT")  # the newest that fits what was detected
    printed = capsys.readouterr().out
    assert "100%" in printed
    for row in outcome.rows:
        assert f"{row.name} {row.voxels} voxels {row.volumeMl} ml" in printed
    assert names["logic"]._script is None


def test_what_cannot_be_done_is_raised_with_its_remedy(releases, patients, tmp_path):
    writeSetting(RUNTIME, sys.executable)
    logic = slicer.util.getModuleLogic("FedSegSlicer")
    volume = load_volume(patients["CT"])
    (tmp_path / "empty").mkdir()
    for arguments, code in (
        ({"volumeNode": None}, "volume.none"),
        ({}, "segment.not-ready"),
        ({"releasesFolder": str(tmp_path / "empty")}, "segment.not-ready"),
        ({"releasesFolder": str(releases), "release": "tiny-MR"}, "segment.other-model"),
        ({"releasesFolder": str(tmp_path / "absent")}, "release.no-folder"),
    ):
        with pytest.raises(UserError) as refused:
            logic.segment(**{"volumeNode": volume, **arguments})
        assert refused.value.code == code
        assert refused.value.remedy
    worker = logic._script._logic.session
    assert worker.isRunning()
    writeSetting(RELEASES_FOLDER, str(releases))  # as the Segment tab keeps it
    outcome = logic.segment(volume, release="tiny-CT-v1", modality="CT", device="cpu")
    assert (outcome.release, outcome.device) == ("tiny-CT-v1", "cpu")
    assert worker in worker.everyOne()
    worker.renew()  # as the runtime panel does before it repairs or removes the runtime
    wait_until(lambda: not worker.isRunning())
    assert logic.segment(volume, modality="CT").release == "tiny-CT-v2"
    logic.close()
    wait_until(lambda: not worker.isRunning())


def test_closing_slicer_ends_a_call_that_waits(releases, patients):
    writeSetting(RUNTIME, sys.executable)
    logic = slicer.util.getModuleLogic("FedSegSlicer")
    volume = load_volume(patients["CT"])

    def close(progress):
        if progress.fraction > 0:
            with pytest.raises(UserError) as busy:
                logic.segment(volume, str(releases))
            assert busy.value.code == "segment.busy"
            slicer.app.close_modules()

    with pytest.raises(UserError) as ended:
        logic.segment(volume, str(releases), "tiny-CT-v1", progress=close)
    assert ended.value.isCancelled


def test_what_a_progress_callback_raises_ends_the_call_and_the_next_one_works(releases, patients):
    writeSetting(RUNTIME, sys.executable)
    logic = slicer.util.getModuleLogic("FedSegSlicer")
    volume = load_volume(patients["CT"])

    def failing(at):
        def fail(progress):
            if progress.fraction >= at:
                raise ZeroDivisionError

        return fail

    for at in (0.0, 0.01, 1.0):
        with pytest.raises(ZeroDivisionError):
            logic.segment(volume, str(releases), modality="CT", progress=failing(at))
        assert findResult(volume) is None
    assert logic.segment(volume, str(releases), modality="CT").node is findResult(volume)
    logic.close()
