"""A result in a scene that was saved and loaded again: what the user did to it, and what was found in it."""

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.SegmentationResult import findResult
from scene_helpers import bring_in, load_volume, save_and_load

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
