"""Whose releases are used: with a key named, an unknown signer is refused; without one, nothing is called trusted."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_release import card_fields, make_weights

from FedSegCore.common.errors import BadInputError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.site.joining import join
from FedSegCore.federation.site.trust import trusted_release_keys
from FedSegCore.models.release import choose_release, publish_release
from FedSegCore.models.signing import load_or_make_key, public_key_of, public_key_to_pem
from FedSegCore.models.trust import read_public_key_file
from FedSegCore.worker.methods import Methods, ReleasesParams, SegmentParams


@pytest.fixture
def known(tmp_path):
    """(folder of releases by a known coordinator and a stranger, file of the known one's public key)"""
    keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    publish_release(tmp_path / "releases", card_fields("known-CT"), make_weights(), keys[0])
    publish_release(tmp_path / "releases", card_fields("strange-MR", "MR"), make_weights(), keys[1])
    (tmp_path / "known.pub").write_bytes(public_key_to_pem(public_key_of(keys[0])))
    return tmp_path / "releases", tmp_path / "known.pub"


def test_only_the_named_keys_releases_are_chosen(known):
    folder, key = known
    trusted = {read_public_key_file(key)}
    assert choose_release(folder, "CT", trusted=trusted).trusted is True
    with pytest.raises(BadInputError) as caught:
        choose_release(folder, "MR", "strange-MR-v1", trusted)
    assert caught.value.code == "release.signer-unknown"
    assert choose_release(folder, "MR").trusted is False


def test_where_all_there_is_comes_from_strangers_that_is_what_is_said(known):
    folder, _ = known
    with pytest.raises(BadInputError) as caught:
        choose_release(folder, "CT", trusted={b"\0" * 32})
    assert caught.value.code == "release.signer-unknown"


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff" * 9000])
def test_what_is_no_key_is_refused(content, tmp_path):
    (tmp_path / "some.pub").write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        trusted_release_keys(None, tmp_path / "some.pub")
    assert caught.value.code == "key.unusable"
    with pytest.raises(BadInputError) as caught:
        trusted_release_keys(None, tmp_path / "absent.pub")
    assert caught.value.code == "key.unreadable"
    assert trusted_release_keys(None, None) is None


def test_a_site_trusts_the_release_key_of_its_invitation(tmp_path, fedseg):
    coordinator = CoordinatorFolder.create(
        tmp_path / "coord", CoordinatorSettings(federation="liver", hosts=("localhost",))
    )
    invite(coordinator, tmp_path / "invitation.json", None, 10)
    site = join(tmp_path / "site", tmp_path / "invitation.json", "north").folder
    own = load_or_make_key(coordinator.release_key)
    assert trusted_release_keys(site.path, None) == {public_key_of(own)}

    releases = tmp_path / "releases"
    publish_release(releases, card_fields("known-CT"), make_weights(), own)
    publish_release(releases, card_fields("strange-CT"), make_weights(), Ed25519PrivateKey.generate())
    done = fedseg("releases", "list", "--releases", releases, "--site", site.path, "--json")
    told = json.loads(done.out)
    assert [(row["id"], row["trusted"]) for row in told["releases"]] == [("known-CT-v1", True)]
    assert [(row["name"], row["code"]) for row in told["broken"]] == [("strange-CT-v1", "release.signer-unknown")]


def test_the_worker_lists_strangers_as_refused(known):
    folder, key = known
    ask = Methods().find("releases").slow
    told = ask(ReleasesParams(folder=folder, trusted=key), Progress())
    assert [(row["id"], row["trusted"]) for row in told["releases"]] == [("known-CT-v1", True)]
    assert [(row["name"], row["code"]) for row in told["broken"]] == [("strange-MR-v1", "release.signer-unknown")]
    assert {row["trusted"] for row in ask(ReleasesParams(folder=folder), Progress())["releases"]} == {False}


def test_the_worker_refuses_to_segment_with_a_strangers_release(known, tmp_path):
    from FedSegCore.phantoms.torso import make_patient
    from FedSegCore.volumes.writing import write_volume

    folder, key = known
    write_volume(make_patient("MR", 1, size="test").image, tmp_path / "scan.nrrd")
    order = {"image": tmp_path / "scan.nrrd", "modality": "MR", "releases": folder, "release": "strange-MR-v1"}
    with pytest.raises(BadInputError) as caught:
        Methods().find("segment").slow(SegmentParams(**order, device="cpu", trusted=key), Progress())
    assert caught.value.code == "release.signer-unknown"


def test_segment_refuses_a_stranger_before_it_computes(known, fedseg, tmp_path):
    from FedSegCore.phantoms.torso import make_patient
    from FedSegCore.volumes.writing import write_volume

    folder, key = known
    write_volume(make_patient("MR", 1, size="test").image, tmp_path / "scan.nrrd")
    arguments = (
        "segment",
        tmp_path / "scan.nrrd",
        "--releases",
        folder,
        "--modality",
        "MR",
        "--trusted",
        key,
        "--json",
    )
    for name in ("strange-MR", "strange-MR-v1"):
        done = fedseg(*arguments, "--out", tmp_path / "found.nrrd", "--release", name)
        assert (done.code, done.out, (tmp_path / "found.nrrd").exists()) == (3, "", False), done.err
        assert "release.signer-unknown" in done.err
