"""A result in a scene that was saved and loaded again: what the user did to it, and what was found in it."""

import json

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.ResultPanel import CHECK_MARK
from FedSegSlicerLib.ResultRecord import recorded
from FedSegSlicerLib.SegmentationResult import RECORD, findResult, undo
from panel_helpers import segmented, table_of
from scene_helpers import bring_in, load_volume, save_and_load, wait_until
from test_result_numbers import erase_half

import FedSegSlicer

pytestmark = pytest.mark.slicer


def test_names_and_colors_the_user_changed_are_kept_also_by_a_run_after_the_scene_was_loaded(patients, tmp_path):
    node = bring_in(patients["CT.labels"], load_volume(patients["CT"]), "tiny-CT-v1").node
    node.GetSegmentation().GetSegment("Segment_1").SetName("Leber, ganz: 1|2")
    node.GetSegmentation().GetSegment("Segment_2").SetColor(0.1, 0.2, 0.3)
    save_and_load(tmp_path)
    volume = slicer.mrmlScene.GetFirstNodeByName("scan")
    bring_in(patients["CT.labels"], volume, "tiny-CT-v2")
    new = findResult(volume).GetSegmentation()
    names = [new.GetSegment(f"Segment_{n}").GetName() for n in range(1, 6)]
    assert names == ["Leber, ganz: 1|2", "right kidney", "left kidney", "spleen", "lesion"]
    np.testing.assert_allclose(new.GetSegment("Segment_2").GetColor(), (0.1, 0.2, 0.3), atol=1 / 255)


def test_a_scene_that_is_loaded_says_what_was_found_and_what_to_check(open_panel, patients, tmp_path):
    panel, _volume = segmented(open_panel, patients)
    ui = panel.ui
    found, checks, how = table_of(ui), ui.checkLabel.text, ui.resultLabel.text
    means = [ui.resultTable.item(row, 2).text() for row in range(len(found))]
    assert "Please check" in checks  # networks that were never trained
    save_and_load(tmp_path)
    panel.ready()
    wait_until(lambda: ui.resultTable.isEnabled())
    assert ui.resultCollapsibleButton.isVisible()
    assert (table_of(ui), ui.checkLabel.text) == (found, checks)
    assert [ui.resultTable.item(row, 2).text() for row in range(len(found))] == means
    assert "dited" not in ui.resultLabel.text
    assert ui.resultLabel.text.split(". ")[0] == how.split(". ")[0]  # model, kind, time
    assert "who signed the model was not checked again" in ui.resultLabel.text
    assert not ui.undoButton.enabled
    assert ui.exportButton.enabled


def test_what_was_edited_before_the_scene_was_saved_is_measured_where_it_is_loaded(open_panel, patients, tmp_path):
    panel, volume = segmented(open_panel, patients)
    before = table_of(panel.ui)
    left = erase_half(volume, "Segment_1")
    size = left * np.prod(volume.GetSpacing()) / 1000
    save_and_load(tmp_path)
    wait_until(lambda: "Edited since, and measured again." in panel.ui.resultLabel.text)
    after = table_of(panel.ui)
    assert after[0][1] == f"{size:,.1f}"
    assert after[1:] == before[1:]


def test_a_result_that_a_script_made_is_shown_when_the_module_is_entered(open_panel, releases, patients):
    volume = load_volume(patients["CT"], "CT abdomen")
    panel = open_panel()
    panel.ready()
    panel.widget.exit()
    script = FedSegSlicer.FedSegSlicerLogic()
    outcome = script.segment(volume, str(releases))
    script.close()
    assert not panel.ui.resultCollapsibleButton.isVisible()
    panel.widget.enter()
    wait_until(lambda: panel.ui.resultTable.isEnabled())
    assert panel.ui.resultTable.rowCount == len(outcome.rows)
    assert outcome.release in panel.ui.resultLabel.text


def test_a_result_that_a_script_has_replaced_is_not_taken_for_the_former_one(open_panel, releases, patients):
    panel, volume = segmented(open_panel, patients)
    assert "tiny-CT-v2" in panel.ui.resultLabel.text
    panel.widget.exit()
    script = FedSegSlicer.FedSegSlicerLogic()
    outcome = script.segment(volume, str(releases), release="tiny-CT-v1")
    script.close()
    panel.widget.enter()
    wait_until(lambda: panel.ui.resultTable.isEnabled())
    assert "tiny-CT-v1" in panel.ui.resultLabel.text
    assert "dited" not in panel.ui.resultLabel.text
    marked = [bool(row.checks) for row in outcome.rows]
    assert [CHECK_MARK in name for name, _size in table_of(panel.ui)] == marked


def test_what_a_result_says_of_itself_goes_with_undo(patients):
    volume = load_volume(patients["CT"])
    node = bring_in(patients["CT.labels"], volume, "tiny-CT-v1").node
    node.SetAttribute(RECORD, "first")
    former = bring_in(patients["CT.labels"], volume, "tiny-CT-v2")
    assert node.GetAttribute(RECORD) is None
    node.SetAttribute(RECORD, "second")
    back = undo(former)
    assert node.GetAttribute(RECORD) == "first"
    undo(back)
    assert node.GetAttribute(RECORD) == "second"


WHOLE = {"release": "a-v1", "modality": "CT", "device": "cpu", "seconds": 1.5, "notes": [], "intensity_unit": "HU"}
ROW = {"name": "liver", "value": 1, "voxels": 5, "volume_ml": 0.5, "area_mm2": None, "mean_intensity": 60.0}


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps({**WHOLE, "segments": [ROW], "please_check": [{"label": ""}]}),
        json.dumps({**WHOLE, "segments": [{**ROW, "volume_ml": "much"}], "please_check": []}),
        json.dumps({**WHOLE, "segments": [{**ROW, "value": 9, "name": 3}], "please_check": []}),
        json.dumps({**WHOLE, "notes": 7, "segments": [ROW], "please_check": []}),
        json.dumps({**WHOLE, "notes": [7], "segments": [ROW], "please_check": []}),
        json.dumps({**WHOLE, "seconds": None, "segments": [ROW], "please_check": []}),
    ],
)
def test_a_record_that_is_not_whole_is_passed_over(record, patients):
    volume = load_volume(patients["CT"])
    node = bring_in(patients["CT.labels"], volume).node
    node.SetAttribute(RECORD, json.dumps({**WHOLE, "segments": [ROW], "please_check": []}))
    assert [row.volumeMl for row in recorded(node, "place").rows] == [0.5]
    node.SetAttribute(RECORD, record)
    assert recorded(node, "place") is None
