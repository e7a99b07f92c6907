"""What is usual at a site, as its own trainer, gate and journal let it out: asked for once, never of a few."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from flwr.app import MessageType, RecordDict
from gated_site import ask, entries, with_privacy
from tiny_deployment import serving, tiny_federation, tiny_policy, write_cohort

from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import UsualTold
from FedSegCore.federation.site.journal_words import entry_words
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.volumes.usual import CohortUsual

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the test listens on a Unix socket")


@pytest.fixture
def site(tmp_path, coordinator, tmp_path_factory):
    """A site with six patients to train on and one to score on, whose trainer listens."""
    cohort = write_cohort(tmp_path / "cases", 1, cases=7)
    settings = SiteSettings(name="a", coordinator="127.0.0.1:9", cohort=cohort, device="cpu", threads=1)
    made = SiteFolder.create(tmp_path / "site", settings, coordinator.authority_certificate, tiny_policy())
    with_privacy(made, minimum_cases=3, decimals=3)
    with serving(made, tmp_path_factory.mktemp("s")):
        yield made


@pytest.fixture
def keep(site):
    """Return ``keep(numbers)``, which leaves these of the six patients in the cohort."""
    whole = json.loads(site.cohort.read_bytes())

    def keep_only(*numbers: int) -> None:
        site.cohort.write_text(json.dumps({**whole, "cases": [whole["cases"][number] for number in [*numbers, 6]]}))

    return keep_only


def order(usual: bool, round_number: int = 1) -> RecordDict:
    task = training_task(tiny_federation(), "CT")
    asked = RoundOrder(group="CT", round_number=round_number, rounds=9, seed=3, task=task, usual=usual)
    return write_order(asked, to_record(initial_model(task.network, 3)))


def told(site: SiteFolder, usual: bool = True, round_number: int = 1) -> CohortUsual | None:
    return read_result(ask(site, order(usual, round_number), MessageType.TRAIN))[0].usual


def whole_boxes(site: SiteFolder) -> int:
    """Return how many of the six patients' boxes end before the last slice."""
    files = [site.cohort.parent / f"labels{number}.nii.gz" for number in range(6)]
    return sum(not sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[-1].any() for file in files)


def test_it_is_told_when_asked_for_rounded_and_journalled(site):
    assert told(site, usual=False) is None
    found = told(site)
    # Boxes of 3 x 7 x 7 voxels of 1 mm³, where they are whole: 0.147 ml in every image.
    assert found.volumes[1].mean == (round(float(np.log(0.147)), 3),)
    assert found.volumes[1].deviation == (0.0,)
    assert 3 <= whole_boxes(site) < 6
    assert (found.volumes[1].patients, found.look.patients) == (whole_boxes(site), 6)
    assert all(value == round(value, 3) for value in (*found.look.mean, *found.look.deviation))
    assert sum(found.look.mean[:8]) == pytest.approx(1.0, abs=0.005)
    written = [entry for entry in entries(site) if isinstance(entry, UsualTold)]
    assert written == [UsualTold(round_number=1, volumes=1, look=True, fewest_patients=whole_boxes(site))]
    assert f"over {whole_boxes(site)} patients or more" in entry_words(written[0])[1]


def test_a_few_patients_more_or_less_change_nothing_that_is_told(site, keep):
    keep(0, 1, 2)
    first = told(site)
    assert first.look.patients == 3
    keep(0, 1, 2, 3)  # with the numbers of four the fourth could be worked out
    assert told(site, round_number=2) == first
    keep(2, 3)  # too few: nothing
    assert ask(site, order(True, 3), MessageType.TRAIN)["failure"]["code"] == "gate.too-few-cases"
    keep(0, 1, 2, 3, 4, 5)  # three more than were told of
    then = told(site, round_number=4)
    assert then.look.patients == 6
    assert then.look != first.look


def test_a_raised_minimum_holds_for_what_was_told_before(site, keep):
    keep(0, 1, 2)
    assert told(site).look.patients == 3
    with_privacy(site, minimum_cases=5, decimals=3)
    keep(0, 1, 2, 3, 4)  # neither the numbers of three again, nor five from which those of two could be worked out
    assert told(site, round_number=2) == CohortUsual(look=None, volumes={})
    assert len([entry for entry in entries(site) if isinstance(entry, UsualTold)]) == 1


def test_what_was_told_is_remembered_by_a_new_process_without_a_patients_id(site, keep, tmp_path_factory):
    keep(0, 1, 2)
    first = told(site)
    keep(0, 1, 2, 3)
    with serving(site, tmp_path_factory.mktemp("s")):
        assert told(site) == first
        kept = site.path / "usual-told.json"
        assert kept.stat().st_mode & 0o077 == 0
        assert b"p1-0" not in kept.read_bytes()
        kept.write_text("damaged")
        assert told(site).look.patients == 4
