"""A site's store of cases: what is taken in, what is refused and why, consent, and the trainer that notices."""

import json
import os
import stat
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from own_cases import AGREED, offer, phantom, write_given

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.site.case_checks import check_case, check_places, voxel_digest
from FedSegCore.federation.site.case_folder import add_folder, pairs_in
from FedSegCore.federation.site.case_intake import CaseOffer, CaseRefusedError
from FedSegCore.federation.site.case_labels import match_labels
from FedSegCore.federation.site.cohort_file import read_cohort_file
from FedSegCore.federation.site.cohort_index import CohortIndex
from FedSegCore.federation.site.cohort_store import CohortStore
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.geometry import reorient
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.segmentation_file import write_segmentation
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume

ALL = (1, 2, 3, 4, 5)


def codes(findings) -> list[str]:
    return [found.code for found in findings]


def test_a_sound_case_is_copied_privately_and_used_only_with_consent(empty_site, store, given):
    case = store.add(offer(given))
    copied = empty_site.store / "cases" / case.case
    np.testing.assert_array_equal(read_volume(copied / "image.nrrd").array, phantom()[0].array)
    np.testing.assert_array_equal(read_label_map(copied / "labels.nrrd").array, phantom()[1].array)
    assert (copied / "thumbnail.png").read_bytes().startswith(b"\x89PNG")
    if os.name != "nt":
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in (empty_site.store, copied.parent, copied)} == {0o700}
    with pytest.raises(BadInputError, match=r"cohort\.none"):
        read_cohort_file(empty_site.cohort)

    store.consent(case.case, "Dr Grey", date(2026, 3, 1))
    (used,) = read_cohort_file(empty_site.cohort).cases
    assert (used.case, used.role, used.patient) == (case.case, "train", case.pseudonym)
    names = {path.name for path in copied.parent.rglob("*")}
    assert names == {case.case, "image.nrrd", "labels.nrrd", "thumbnail.png"}
    for file in [path for path in empty_site.path.rglob("*") if path.is_file() and path.name != "index.json"]:
        assert b"Doe" not in file.read_bytes(), file.name

    store.revoke(case.case, date(2026, 4, 1))
    assert not empty_site.cohort.exists()
    assert store.case(case.case).consents[-1].revoked == date(2026, 4, 1)
    with pytest.raises(UsageError, match=r"store\.no-consent"):
        store.revoke(case.case)
    store.consent(case.case, "Dr Grey")
    store.remove(case.case)
    assert not empty_site.cohort.exists()
    assert list(copied.parent.iterdir()) == []
    assert (given / "image.nrrd").exists()
    kinds = [line.entry.kind for line in empty_site.journal.lines()][1:]
    assert kinds == ["case-added", "consent-given", "consent-revoked", "consent-given", "case-removed"]


def test_the_same_image_under_another_name_or_format_is_refused(store, given):
    first = store.add(offer(given))
    image, _ = phantom()
    turned = reorient(Volume(image.array.astype(np.float32), image.grid, image.modality), "RAS")
    write_volume(turned, given / "other.nii.gz")
    again = CaseOffer(given / "other.nii.gz", given / "labels.nii.gz", "somebody else", "CT")
    assert codes(store.check(again).refused) == ["case.duplicate"]
    with pytest.raises(CaseRefusedError, match=r"case\.duplicate"):
        store.add(again)
    assert [case.case for case in store.index().cases] == [first.case]


def test_segments_are_found_by_code_whatever_their_names_and_numbers(store, given):
    _, labels = phantom()
    scrambled = {1: 7, 2: 3, 3: 9, 4: 1, 5: 4}
    array = np.zeros_like(labels.array)
    for value, own in scrambled.items():
        array[labels.array == value] = own
    shown = [
        label.model_copy(update={"value": scrambled[label.value], "name": f"Segment_{n}"})
        for n, label in enumerate(TORSO_CONTRACT.labels)
    ]
    write_segmentation(labels.with_array(array), shown, given / "own.seg.nrrd")
    checked = store.check(offer(given, labels="own.seg.nrrd"))
    assert not checked.findings
    np.testing.assert_array_equal(checked.labels.array, labels.array)


def test_what_is_not_mapped_must_be_declared(store, given):
    _, labels = phantom()
    write_segmentation(labels, TORSO_CONTRACT.labels[:4], given / "four.seg.nrrd")
    four = offer(given, labels="four.seg.nrrd")
    assert codes(store.check(four).refused) == ["case.label-unmapped"]
    declared = offer(given, labels="four.seg.nrrd", naming={"lesion": "not annotated"})
    case = store.add(declared, AGREED)
    assert case.annotated == ("liver", "right kidney", "left kidney", "spleen")
    used = json.loads(store._folder.cohort.read_text())["cases"][0]["mapping"]["values"]
    assert (used["lesion"], used["spleen"]) == ("not annotated", [4])
    # said once for all
    store.remove(case.case)
    assert not store.check(four).refused


def test_an_outline_of_what_was_declared_not_annotated_is_not_left_out_in_silence(store, given, tmp_path):
    write_given(tmp_path / "second", seed=1)
    write_segmentation(phantom()[1], TORSO_CONTRACT.labels[:4], given / "four.seg.nrrd")
    store.add(offer(given, labels="four.seg.nrrd", naming={"lesion": "not annotated"}))
    second = offer(tmp_path / "second", "second")
    (found,) = store.check(second).refused
    assert (found.code, "lesion" in found.words) == ("case.label-declared", True)
    accepted = store.check(replace(second, accept=("case.label-declared",)))
    assert (accepted.refused, accepted.annotated) == ((), (1, 2, 3, 4))
    (remark,) = store.check(replace(second, naming={"lesion": "not annotated"})).findings
    assert (remark.code, remark.refuses, "lesion" in remark.words) == ("case.label-declared", False, True)
    again = replace(second, naming={"lesion": None})
    assert (store.check(again).findings, store.check(again).annotated) == ((), ALL)
    assert store.index().naming == {"lesion": "not annotated"}  # a check changes nothing
    assert "lesion" in store.add(again).annotated
    assert store.index().naming == {}


def test_a_folder_may_be_declared_not_annotated_but_not_by_an_earlier_case(store, given, tmp_path):
    write_segmentation(phantom()[1], TORSO_CONTRACT.labels[:4], given / "four.seg.nrrd")
    store.add(offer(given, labels="four.seg.nrrd", naming={"lesion": "not annotated"}))
    (tmp_path / "images").mkdir()
    image, labels = phantom(seed=1)
    write_volume(image, tmp_path / "images" / "p1.nrrd")
    write_segmentation(labels, TORSO_CONTRACT.labels, tmp_path / "images" / "p1.seg.nrrd")

    def taken(**more):
        return add_folder(store, tmp_path / "images", CaseOffer(Path(), Path(), "", "CT", **more), None, Progress())

    assert [one.code for one in taken().left_out] == ["case.label-declared"]
    (case,) = taken(naming={"lesion": "not annotated"}).added
    assert ("lesion" in case.annotated, case.accepted) == (False, ())


def test_numbers_of_a_plain_label_map(given):
    _, labels = phantom()
    shifted = labels.with_array(np.where(labels.array > 0, labels.array + 10, 0).astype(np.uint8))
    assert codes(match_labels(shifted, None, TORSO_CONTRACT, {}).findings) == ["case.labels-unexpected"]
    naming = {label.name: (str(label.value + 10),) for label in TORSO_CONTRACT.labels}
    matched = match_labels(shifted, None, TORSO_CONTRACT, naming)
    assert (matched.findings, matched.annotated) == ((), ALL)
    np.testing.assert_array_equal(matched.labels.array, labels.array)
    twice = {**naming, "lesion": ("11",)}
    assert "case.label-twice" in codes(match_labels(shifted, None, TORSO_CONTRACT, twice).findings)
    missing = {name: own for name, own in naming.items() if name != "lesion"}
    found = match_labels(shifted, None, TORSO_CONTRACT, missing)
    assert codes(found.findings) == ["case.label-unmapped", "case.labels-left-out"]
    assert [finding.refuses for finding in found.findings] == [True, False]


def test_labels_elsewhere_are_refused_and_cropped_ones_are_put_in_place(store, given):
    _, labels = phantom()
    moved = Volume(labels.array, Grid(labels.grid.shape, labels.grid.spacing, (3.3, 0.0, 0.0)))
    write_volume(moved, given / "moved.nrrd")
    with pytest.raises(BadInputError, match=r"labels\.other-grid"):
        store.check(offer(given, labels="moved.nrrd"))
    k, j, i = (slice(axis.min(), axis.max() + 1) for axis in np.nonzero(labels.array[0]))
    low = (labels.grid.affine() @ [i.start, j.start, k.start, 1.0])[:3]
    cut = labels.array[:, k, j, i]
    small = Grid(cut.shape[1:], labels.grid.spacing, tuple(map(float, low)), labels.grid.direction)
    write_segmentation(Volume(cut, small), TORSO_CONTRACT.labels, given / "cut.seg.nrrd")
    np.testing.assert_array_equal(store.check(offer(given, labels="cut.seg.nrrd")).labels.array, labels.array)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_patient_is_found_by_the_sides_of_organs_in_any_voxel_order(axis: int):
    image, labels = phantom()
    for code in ("LPS", "RAS", "SLA"):
        assert check_case(image, reorient(labels, code), TORSO_CONTRACT, ALL, "CT") == ()
    cosines = np.reshape(labels.grid.direction, (3, 3)).copy()
    cosines[axis] *= -1
    mirrored = Volume(labels.array, Grid(labels.grid.shape, labels.grid.spacing, direction=tuple(cosines.ravel())))
    found = check_places(mirrored, TORSO_CONTRACT, "CT")
    # front and back of this contract's organs cannot be told apart
    assert codes(found) == (["case.sides"] if axis == 0 else [])
    assert check_places(mirrored, TORSO_CONTRACT, "US") == []


def test_real_annotations_lie_the_right_way_round(real_data: Path):
    contract = TORSO_CONTRACT.model_copy(update={"labels": TORSO_CONTRACT.labels[:4]})
    for folder, case, numbers in (
        ("ct_abdomen_btcv", "btcv_05", {"liver": 6, "right kidney": 2, "left kidney": 3, "spleen": 1}),
        ("mr_abdomen_chaos_t2", "chaos_t2_01", {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}),
    ):
        modality = folder[:2].upper()
        image = read_volume(real_data / folder / f"{case}_img.nii.gz", modality=modality)
        labels = read_label_map(real_data / folder / f"{case}_seg.nii.gz")
        naming = {name: (str(number),) for name, number in numbers.items()}
        matched = match_labels(labels, None, contract, naming)
        assert check_places(matched.labels, contract, modality) == []
        # a map whose left and right were exchanged
        swapped = {**naming, "right kidney": naming["left kidney"], "left kidney": naming["right kidney"]}
        wrong = match_labels(labels, None, contract, swapped)
        assert codes(check_places(wrong.labels, contract, modality)) == ["case.sides"]
        # this copy of the CT data was brought to values above 0, which a site must look at before it trains on it
        grey = ["case.intensities"] if modality == "CT" else []
        assert codes(check_case(image, matched.labels, contract, matched.annotated, modality)) == grey


def test_grey_values_sizes_and_emptiness():
    image, labels = phantom()

    def found(image=image, labels=labels, modality="CT") -> list[str]:
        return codes(check_case(image, labels, TORSO_CONTRACT, ALL, modality))

    assert found() == []
    assert found(image.with_array(image.array - image.array.min())) == ["case.intensities"]
    assert found(image.with_array((labels.array > 0).astype(np.int16) - 1)) == ["case.intensities"]
    assert found(modality="MR") == ["case.intensities"]
    metres = Grid(image.grid.shape, (0.001, 0.001, 0.001))
    assert found(Volume(image.array, metres)) == ["case.size"]
    assert found(labels=labels.with_array(np.zeros_like(labels.array))) == ["case.empty"]
    no_spleen = labels.with_array(np.where(labels.array == 4, 0, labels.array))
    assert found(labels=no_spleen) == ["case.absent"]


def test_a_single_coronal_slice_is_refused_where_networks_see_axial_ones():
    image, labels = phantom()
    middle = image.grid.shape[1] // 2
    grid = replace(image.grid, shape=(image.grid.shape[0], 1, image.grid.shape[2]))
    coronal, own = (Volume(each.array[:, :, middle : middle + 1], grid, "CT") for each in (image, labels))
    assert "case.not-axial" in codes(check_case(coronal, own, TORSO_CONTRACT, ALL, "CT"))
    assert "case.not-axial" not in codes(check_case(coronal, own, TORSO_CONTRACT, ALL, "US"))


def test_a_person_may_accept_what_is_rare_but_not_what_is_wrong(store, given):
    image, labels = phantom()
    empty = labels.with_array(np.zeros_like(labels.array))
    write_segmentation(empty, TORSO_CONTRACT.labels, given / "none.seg.nrrd")
    assert codes(store.check(offer(given, labels="none.seg.nrrd")).refused) == ["case.empty"]
    case = store.add(offer(given, labels="none.seg.nrrd", accept=("case.empty",)))
    assert case.accepted == ("case.empty",)
    again = store.check(offer(given, accept=("case.duplicate",)))
    assert codes(again.refused) == ["case.duplicate"]
    assert store.check_stored(case.case) == ()
    write_volume(Volume(image.array + 1, image.grid, "CT"), store._case_folder(case.case) / "image.nrrd")
    assert codes(store.check_stored(case.case)) == ["case.changed"]


def test_voxels_are_the_same_whatever_the_order_of_axes():
    image, labels = phantom()
    assert voxel_digest(reorient(image, "RAS")) == voxel_digest(image) != voxel_digest(labels)


def test_a_fifth_of_the_patients_is_scored_on_and_never_changes_sides():
    index = CohortIndex()
    roles: list[str] = []
    for number in range(20):
        role = index.role_for(f"patient {number}", None)
        roles.append(str(role))
        filled = {
            "case": f"{number:016x}", "patient": f"patient {number}", "pseudonym": f"p-{number:016x}", "title": "",
            "role": role, "annotated": [], "added": "2026-03-01", "sha256": "a" * 64, "labels_sha256": "b" * 64,
        }  # fmt: skip
        index = CohortIndex.model_validate({"cases": [*(case.model_dump() for case in index.cases), filled]})
    assert roles[:3] == ["train", "train", "validation"]
    assert roles.count("validation") == 4
    assert [index.role_for(f"patient {number}", None) for number in range(20)] == roles
    assert index.role_for("patient 2", "train") is None
    assert index.role_for("somebody new", "validation") == "validation"


def test_who_was_trained_on_is_not_scored_on_after_a_removal(store, tmp_path):
    for seed in range(4):
        write_given(tmp_path / f"p{seed}", seed)
    added = [store.add(offer(tmp_path / f"p{seed}", f"patient {seed}"), AGREED) for seed in range(3)]
    assert [case.role for case in added] == ["train", "train", "validation"]
    for case in added:
        store.remove(case.case)
    assert "patient 0" not in (store._folder.store / "index.json").read_text()
    assert codes(store.check(offer(tmp_path / "p0", "patient 0", role="validation")).refused) == [
        "case.patient-in-both"
    ]
    for seed in (2, 1, 0):
        assert store.add(offer(tmp_path / f"p{seed}", f" patient {seed} ")).role == added[seed].role
    # nobody was trained on without consent, so a role given by mistake can be mended
    store.remove(store.add(offer(tmp_path / "p3", "somebody", role="train")).case)
    assert store.add(offer(tmp_path / "p3", "somebody", role="validation")).role == "validation"


def test_spaces_around_an_id_make_no_other_patient(store, given, tmp_path):
    write_given(tmp_path / "second", seed=1)
    first = store.add(offer(given, "P 1"))
    second = store.add(offer(tmp_path / "second", "P 1 "))
    assert (second.patient, second.pseudonym, second.role) == (first.patient, first.pseudonym, first.role)
    # as a former version stored it
    index_file = store._folder.store / "index.json"
    index_file.write_text(index_file.read_text().replace('"patient": "P 1"', '"patient": " P 1\\t"'))
    assert {case.patient for case in store.index().cases} == {"P 1"}


def test_a_case_of_another_modality_or_a_patient_in_both_roles_is_refused(store, given):
    store.add(offer(given))
    mr = make_patient("MR", 1, size="test")
    write_volume(mr.image, given / "mr.nrrd")
    write_segmentation(mr.labels, TORSO_CONTRACT.labels, given / "mr.seg.nrrd")
    other = CaseOffer(given / "mr.nrrd", given / "mr.seg.nrrd", "Doe^Jane", "MR", role="validation")
    assert {"case.other-modality", "case.patient-in-both"} <= set(codes(store.check(other).refused))


def test_an_emptied_store_takes_another_modality(store, given):
    store.remove(store.add(offer(given), AGREED).case)
    assert store.index().modality is None
    mr = make_patient("MR", 1, size="test")
    write_volume(mr.image, given / "mr.nrrd")
    write_segmentation(mr.labels, TORSO_CONTRACT.labels, given / "mr.seg.nrrd")
    store.add(CaseOffer(given / "mr.nrrd", given / "mr.seg.nrrd", "Roe^Rita", "MR"), AGREED)
    assert read_cohort_file(store._folder.cohort).modality == "MR"
    assert "case.other-modality" in codes(store.check(offer(given, modality="CT")).refused)


def test_a_site_with_a_cohort_file_of_its_own_keeps_it(site: SiteFolder, given):
    with pytest.raises(UsageError, match=r"store\.own-cohort"):
        CohortStore(site, TORSO_CONTRACT).add(offer(given))


def test_a_dicom_image_leaves_its_tags_behind(store, given):
    """The planted name is in the tag, the file's name and the segment's name."""
    image, _ = phantom()
    write_volume(image, given / "Doe_Jane.nrrd")
    planted = sitk.ReadImage(str(given / "Doe_Jane.nrrd"))
    planted.SetMetaData("PatientName", "Doe^Jane")
    sitk.WriteImage(planted, str(given / "Doe_Jane.nrrd"))
    assert b"Doe^Jane" in (given / "Doe_Jane.nrrd").read_bytes()
    case = store.add(CaseOffer(given / "Doe_Jane.nrrd", given / "labels.seg.nrrd", "Doe^Jane"), AGREED)
    for path in (store._folder.store / "cases" / case.case).iterdir():
        assert b"Doe" not in path.read_bytes()
    assert "Doe" not in store._folder.cohort.read_text()


def test_a_folder_becomes_cases_and_what_cannot_be_used_is_named(store, given, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number, ending in enumerate((".nii.gz", ".nrrd")):
        image, labels = phantom(seed=number)
        write_volume(image, images / f"p{number}{ending}")
        write_segmentation(labels, TORSO_CONTRACT.labels, images / f"p{number}.seg.nrrd")
    (images / "p2_img.nrrd").write_bytes((given / "image.nrrd").read_bytes())  # nothing belongs to it
    (images / "p3.nrrd").write_bytes(b"no image")
    (images / "p3_labels.nrrd").write_bytes(b"no labels")
    (images / "notes.txt").write_text("Doe^Jane")
    assert list(pairs_in(images)) == ["p0", "p1", "p3"]
    like = CaseOffer(Path(), Path(), "", "CT")
    taken = add_folder(store, images, like, AGREED, Progress())
    assert [(case.patient, case.title, case.consented) for case in taken.added] == [
        ("p0", "p0.nii.gz", True), ("p1", "p1.nrrd", True)]  # fmt: skip
    (left,) = taken.left_out
    assert left.name == "p3"
    assert left.code.startswith(("image.", "labels."))
    again = add_folder(store, images, like, None, Progress())
    assert [one.code for one in again.left_out][:2] == ["case.duplicate"] * 2
    assert again.added == ()
    for nothing in (tmp_path / "absent", tmp_path / "site"):
        with pytest.raises(BadInputError, match=r"cohort\.folder"):
            pairs_in(nothing)
