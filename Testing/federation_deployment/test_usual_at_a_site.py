"""What is usual at a site, as its own trainer, gate and journal let it out: asked for once, never of a few."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from flwr.app import MessageType, RecordDict
from gated_site import ask, entries, with_privacy
from tiny_deployment import CONTRACT, serving, tiny_federation, tiny_policy, write_cohort

from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, read_result, write_order
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal_entries import UsualTold
from FedSegCore.federation.site.journal_words import entry_words
from FedSegCore.federation.site.policy import SitePolicy
from FedSegCore.federation.site.usual_memory import UsualMemory
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.cohort_usual import usual_of
from FedSegCore.volumes.labels import LabelContract
from FedSegCore.volumes.preprocessing import Preprocessing
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


def order(usual: bool, round_number: int, **config: object) -> RecordDict:
    task = training_task(tiny_federation(**config), "CT")
    asked = RoundOrder(group="CT", round_number=round_number, rounds=9, seed=3, task=task, usual=usual)
    return write_order(asked, to_record(initial_model(task.network, 3)))


def told(site: SiteFolder, usual: bool = True, round_number: int = 1, **config: object) -> CohortUsual | None:
    return read_result(ask(site, order(usual, round_number, **config), MessageType.TRAIN))[0].usual


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


@pytest.mark.parametrize("changed", [{"spacing": (1.00001, None, None)}, {"window": (-100.0, 200.001)}])
def test_preparing_the_images_in_another_way_tells_nothing_of_who_came_in_between(site, keep, changed):
    """With the rules that a site has where nobody changes them."""
    with_privacy(site, **SitePolicy().privacy.model_dump())
    keep(0, 1, 2, 3, 4)
    first = told(site)
    assert first.look.patients == 5
    keep(0, 1, 2, 3, 4, 5)
    otherwise = Preprocessing(modality="CT", **{"window": (-100.0, 200.0), **changed})
    assert told(site, round_number=2, preprocessing={"CT": otherwise}).look is None
    assert told(site, round_number=3).look == first.look


def steady(site: SiteFolder, names: tuple[str, ...], *patients: int, minimum: int = 5) -> dict[int, int]:
    """Return of how many patients the volume of each number is told, where it is found in so many."""
    labels = [
        CONTRACT.labels[0].model_copy(update={"name": name, "value": value}) for value, name in enumerate(names, 1)
    ]
    task = training_task(tiny_federation(contract=LabelContract(labels=tuple(labels))), "CT")
    measured = {
        value: {f"p{number}": (float(number),) for number in range(count)} for value, count in enumerate(patients, 1)
    }
    found = UsualMemory(site).steady(usual_of(measured), measured, minimum, task)
    return {value: usual.patients for value, usual in found.volumes.items()}


def test_neither_another_name_nor_another_number_makes_a_label_a_new_one(site):
    assert steady(site, ("liver", "tumour"), 20, 5) == {1: 20, 2: 5}
    # a site without a mapping goes by the number, one with a mapping by the name
    assert steady(site, ("liver", "lump"), 20, 6) == {1: 20}
    assert steady(site, ("tumour", "liver"), 6, 20) == {}
    assert steady(site, ("liver", "tumour"), 21, 6) == {1: 20, 2: 5}
    assert steady(site, ("liver", "tumour"), 21, 10) == {1: 20, 2: 10}
    # back to nearly those of whom it was told first: these differ from the last ones by enough, yet not from the first
    assert steady(site, ("liver", "tumour"), 21, 4, minimum=2) == {1: 20, 2: 5}


def test_what_a_former_version_remembered_still_counts(site):
    assert steady(site, ("liver",), 5) == {1: 5}
    kept = site.path / "usual-told.json"
    old = json.loads(kept.read_text())
    for entry in old["told"]:
        del entry["value"]
    kept.write_text(json.dumps(old))
    assert steady(site, ("liver",), 6) == {1: 5}
    assert steady(site, ("liver",), 11) == {1: 11}
