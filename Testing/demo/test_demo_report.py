"""The demo's report of models that learnt next to nothing, as after a single round."""

from pathlib import Path

import numpy as np
import pytest

from FedSegCore.demo.report import DemoFacts, SegmentedCase, write_demo_report
from FedSegCore.demo.settings import demo_federation
from FedSegCore.federation.outcome import FederationOutcome
from FedSegCore.learning.metrics import case_scores
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.volume import Grid, Volume

SHAPE = (24, 24, 24)


def labelled(values: np.ndarray) -> Volume:
    return Volume(values[None].astype(np.uint8), Grid(SHAPE, (4.0, 4.0, 4.0)))


@pytest.mark.parametrize("specks", [0, 1])
def test_a_model_that_found_next_to_nothing_has_a_report_without_its_picture(tmp_path: Path, specks: int) -> None:
    truth, found = np.zeros(SHAPE), np.zeros(SHAPE)
    truth[6:18, 6:18, 6:18] = 1
    found[2, 2, 2] = specks
    image = Volume(np.zeros((1, *SHAPE), np.float32), labelled(truth).grid)
    scores = case_scores(found.astype(np.uint8), truth.astype(np.uint8), image.grid, TORSO_CONTRACT, (1,), "unseen")
    case = SegmentedCase("CT", "demo-CT-v1", 1.0, image, labelled(truth), labelled(found), scores)
    outcome = FederationOutcome(demo_federation(1, 0), {})
    write_demo_report(tmp_path / "report.html", DemoFacts(outcome, [case], {"training": 1.0}))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the model found too little to draw" in page
    # the slice with its outlines, and the truth in 3-D
    assert page.count("data:image/png;base64,") == 2
