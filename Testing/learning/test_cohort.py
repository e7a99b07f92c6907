import numpy as np
import pytest
from blob_cohort import CONTRACT, CT

from FedSegCore.common.errors import BadInputError, CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.process_log import NamelessFormatter
from FedSegCore.learning.case import CaseOnDisk, TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.volumes.volume import Grid, Volume

SHAPE = (3, 8, 10)


def a_case(name: str = "a", *, modality: str | None = "CT", value: int = 1, **changes) -> TrainingCase:
    image = np.full((1, *SHAPE), -500.0, np.float32)
    image[0, 1, 2:5, 3:7] = 40.0
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 1, 2:5, 3:7] = value
    grid = Grid(SHAPE, (2.0, 2.0, 4.0))
    given = {"case_id": name, "patient": f"patient of {name}", "annotated": (1,), **changes}
    return TrainingCase(image=Volume(image, grid, modality), labels=Volume(labels, grid), **given)


def test_a_case_is_windowed_and_kept_small():
    cohort = Cohort.prepare([a_case()], [], CT, CONTRACT)
    case = cohort.training[0]
    # (40 HU - (-160)) / (240 - (-160)) = 0.5, and -500 HU lies below the window.
    assert case.image[0, 1, 3, 4] == 0.5
    assert case.image[0, 0, 0, 0] == 0.0
    assert (case.image.dtype, case.labels.dtype) == (np.float16, np.uint8)
    assert case.labels.sum() == 3 * 4
    assert cohort.set_aside == ()


def test_flipped_images_and_labels_stay_together():
    turned = Grid(SHAPE, (2.0, 2.0, 4.0), direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    case = a_case()
    flipped = TrainingCase("f", "f", Volume(case.image.array, turned, "CT"), Volume(case.labels.array, turned), (1,))
    prepared = Cohort.prepare([flipped], [], CT, CONTRACT).training[0]
    assert (prepared.image[0, 1, ::-1, ::-1] == 0.5).sum() == 12
    np.testing.assert_array_equal(prepared.labels == 1, prepared.image[0] == 0.5)


def unreadable() -> TrainingCase:
    raise BadInputError("image.unreadable", "The file is damaged.", "Copy it again.")


NAMING = "/patients/jane-doe.nii"


def surprising() -> TrainingCase:
    raise PermissionError(13, "Permission denied", NAMING)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (a_case("bad", modality="MR"), "case.other-modality"),
        (a_case("bad", value=2), "case.labels-unexpected"),
        (a_case("bad", annotated=()), "case.labels-unknown"),
        (a_case("bad", annotated=(1, 3)), "case.labels-unknown"),
        (CaseOnDisk("bad", "nobody", unreadable), "image.unreadable"),
        (CaseOnDisk("bad", "nobody", surprising), "case.unreadable"),
    ],
)
def test_a_bad_case_is_set_aside_and_the_others_are_used(bad, code):
    cohort = Cohort.prepare([a_case("a"), bad, a_case("b")], [a_case("c")], CT, CONTRACT)
    assert [case.case_id for case in cohort.training] == ["a", "b"]
    assert [(case.case_id, case.code) for case in cohort.set_aside] == [("bad", code)]
    assert cohort.set_aside[0].reason
    assert "jane" not in cohort.set_aside[0].reason


def test_where_a_surprise_came_from_is_logged_without_its_text(caplog):
    Cohort.prepare([a_case("a"), CaseOnDisk("bad", "nobody", surprising)], [], CT, CONTRACT)
    (record,) = caplog.records
    line = NamelessFormatter().format(record)
    assert "in surprising" in line
    assert "PermissionError" in line
    assert "jane" not in line


def test_lack_of_memory_is_no_fault_of_a_case():
    def too_large() -> TrainingCase:
        raise MemoryError

    with pytest.raises(MemoryError):
        Cohort.prepare([CaseOnDisk("a", "a", too_large)], [], CT, CONTRACT)


def test_labels_on_another_grid_are_set_aside():
    case = a_case("bad")
    elsewhere = Volume(case.labels.array, Grid(SHAPE, (2.0, 2.0, 4.0), origin=(1.0, 0.0, 0.0)))
    shifted = TrainingCase("bad", "p", case.image, elsewhere, (1,))
    cohort = Cohort.prepare([shifted], [], CT, CONTRACT)
    assert (cohort.training, cohort.set_aside[0].code) == ((), "labels.other-grid")


def test_cases_on_disk_are_read_one_at_a_time_in_order():
    read = []

    def on_disk(name: str) -> CaseOnDisk:
        return CaseOnDisk(name, name, lambda: read.append(name) or a_case(name))

    cohort = Cohort.prepare([on_disk("a"), on_disk("b")], [on_disk("c")], CT, CONTRACT)
    assert read == ["a", "b", "c"]
    assert [case.case_id for case in cohort.validation] == ["c"]


def test_a_patient_is_never_on_both_sides():
    with pytest.raises(BadInputError, match=r"cohort\.patient-in-both"):
        Cohort.prepare([a_case("a", patient="x")], [a_case("b", patient="x")], CT, CONTRACT)


def test_examples_are_slices_in_2d_and_cases_in_3d():
    cohort = Cohort.prepare([a_case("a"), a_case("b")], [a_case("c")], CT, CONTRACT)
    assert (cohort.num_examples(2), cohort.num_examples(3)) == (6, 2)
    pooled = Cohort.pooled([cohort, Cohort.prepare([a_case("d")], [], CT, CONTRACT)])
    assert (pooled.num_examples(3), len(pooled.validation)) == (3, 1)


def test_preparing_can_be_cancelled():
    def stop(_fraction: float, stage: str) -> None:
        if "case 2" in stage:
            progress.cancel()

    progress = Progress(stop)
    with pytest.raises(CancelledError):
        Cohort.prepare([a_case("a"), a_case("b"), a_case("c")], [], CT, CONTRACT, progress)
