"""From a federation's sites to the marks on a result: what is usual travels with the release and is compared with."""

import json

import numpy as np
import pytest
from blob_scans import CONTRACT, CT, PATCH, ball_scan, centred

from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.publishing import publish_outcome
from FedSegCore.inference.doubts import doubts_of
from FedSegCore.inference.segmenter import Segmenter
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.models.card import ModelCard
from FedSegCore.models.release import open_release
from FedSegCore.models.signing import load_or_make_key
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.volume import Volume
from FedSegCore.volumes.writing import write_volume

GRID = centred((10, 40, 40))


def radius_of(site: int, patient: int) -> float:
    """Balls of 16 to 22 mm."""
    return 16.0 + (5 * site + patient) * 6.0 / 9.0


def cohort(site: int) -> Cohort:
    cases = []
    for patient in range(5):
        image, ball = ball_scan(GRID, 10 * site + patient, radius_of(site, patient), (3.0 * patient - 6.0, 4.0, 0.0))
        labels = Volume(ball[None].astype(np.uint8), image.grid)
        cases.append(TrainingCase(f"{site}-{patient}", f"{site}-{patient}", image, labels, (1,)))
    return Cohort.prepare(cases, [], CT, CONTRACT)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release of a federation of two sites with five patients each."""
    folder = tmp_path_factory.mktemp("usual")
    config = FederationConfig.model_validate(
        {
            "name": "balls",
            "contract": CONTRACT,
            "rounds": 2,
            "aggregation": {"rule": "fedavg"},
            "preprocessing": {"CT": CT},
            "networks": {"default": NetworkConfig(dimensions=2, options={"channels": [8, 16, 32]})},
            "training": {"patch_size": PATCH, "batch_size": 4, "steps_per_round": 60, "learning_rate": 1e-2},
            "augmentation": {"gin": None},
        }
    )
    sites = {"north": ("CT", cohort(0)), "south": ("CT", cohort(1))}
    outcome = run_in_process(config, sites, folder / "run")
    told = {row.site: row.usual for row in outcome.groups["CT"].history if row.round_number == 2}
    assert told == {"north": None, "south": None}  # asked for once
    (path,) = publish_outcome(outcome, folder / "releases", load_or_make_key(folder / "key")).values()
    return open_release(path)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("cpu")


def marks(segmenter, release, image: Volume) -> list[tuple[str, str]]:
    found = segmenter.segment(image, release, modality="CT")
    return [(doubt.label, doubt.code) for doubt in doubts_of(found)]


def test_the_card_tells_what_is_usual_in_all_sites_together(release):
    usual = release.card.usual["CT"]
    assert usual.look.patients == usual.volumes["ball"].patients == 10
    assert set(usual.volumes) == {"ball"}
    # A ball of r mm has 4/3 π r³ / 1000 ml; voxels of 3 x 3 x 6 mm blur that by a few per cent.
    logs = [np.log(4 / 3 * np.pi * radius_of(site, patient) ** 3 / 1000) for site in range(2) for patient in range(5)]
    assert usual.volumes["ball"].mean == pytest.approx((np.mean(logs),), abs=0.05)
    assert usual.volumes["ball"].deviation == pytest.approx((np.std(logs, ddof=1),), abs=0.05)


def test_an_image_like_those_of_training_has_no_mark(segmenter, release):
    image, _ = ball_scan(GRID, 99, 19.0, (0.0, 4.0, 0.0))
    assert marks(segmenter, release, image) == []


def test_an_absurd_volume_is_marked(segmenter, release):
    tiny, _ = ball_scan(GRID, 99, 6.0, (0.0, 4.0, 0.0))
    found = marks(segmenter, release, tiny)
    assert ("ball", "unusual-volume") in found
    assert ("", "unlike-training") not in found


@pytest.mark.parametrize("kind", ["noise", "magnetic resonance", "another window"])
def test_an_image_unlike_those_of_training_is_marked_first(kind, segmenter, release):
    ct, _ = ball_scan(GRID, 99, 19.0, (0.0, 4.0, 0.0))
    draws = np.random.default_rng(0)
    voxels = {
        "noise": draws.normal(40.0, 300.0, ct.array.shape),
        # an MR image has arbitrary units; -1 somewhere, so that nothing tells that it is no CT
        "magnetic resonance": np.where(ct.array > -500, 300.0 + ct.array, draws.normal(0.0, 5.0, ct.array.shape)),
        "another window": np.clip(ct.array / 4.0, -50.0, 50.0),
    }[kind]
    assert marks(segmenter, release, Volume(voxels.astype(np.int16), ct.grid))[0] == ("", "unlike-training")


def test_the_command_tells_both_kinds_of_mark(release, fedseg, tmp_path):
    ct, _ = ball_scan(GRID, 99, 6.0, (0.0, 4.0, 0.0))
    write_volume(ct, tmp_path / "tiny.nii.gz")
    noise = Volume(np.random.default_rng(0).normal(40.0, 300.0, ct.array.shape).astype(np.int16), ct.grid)
    write_volume(noise, tmp_path / "noise.nii.gz")
    for name, words in (("tiny", "Please check ball: smaller than usual"), ("noise", "Please check the image: ")):
        order = ["segment", tmp_path / f"{name}.nii.gz", "--releases", release.path.parent, "--modality", "CT"]
        done = fedseg(*order, "--out", tmp_path / f"{name}.seg.nrrd", "--device", "cpu", "--json")
        assert done.code == 0
        assert words in done.err
        assert json.loads(done.out)["please_check"]


def test_a_card_without_what_is_usual_is_still_a_card(segmenter, release):
    old = json.loads(release.card.model_dump_json())
    del old["usual"]
    card = ModelCard.model_validate(old)
    assert card.usual == {}
    volume = release.card.usual["CT"].volumes["ball"].model_dump()
    for wrong in ({"MR": {}}, {"CT": {"volumes": {"spleen": volume}}}, {"CT": {"look": volume}}):
        with pytest.raises(ValueError, match=r"modality|label|look"):
            ModelCard.model_validate({**old, "usual": wrong})
