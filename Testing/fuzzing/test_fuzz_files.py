"""Files that people and other machines give: each gives a valid object or an error with a code and a remedy."""

import datetime as dt
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st
from mutations import bounded, coded, spoilt_bytes, spoilt_document, spoilt_json

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, draw_gin
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.common.errors import FedSegError
from FedSegCore.federation import invitation as invitations
from FedSegCore.federation import join_request as requests
from FedSegCore.federation.config import read_federation_config
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.presets import preset_names, preset_path
from FedSegCore.federation.site.cohort_file import CohortDescription, read_cohort_file
from FedSegCore.federation.site.control import Control, read_control
from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
from FedSegCore.federation.site.journal import Journal
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.local_gin import LocalGin, local_gin_file, read_local_gin
from FedSegCore.federation.site.policy import SitePolicy, read_policy
from FedSegCore.federation.site.status import read_status
from FedSegCore.models.release import Release, open_release, publish_release
from FedSegCore.models.signing import public_key_of, public_key_to_pem
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING

LIVER = Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101))
CONTRACT = LabelContract(labels=(LIVER,))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> SiteFolder:
    root = tmp_path_factory.mktemp("site")
    settings = CoordinatorSettings(federation="fuzz", hosts=("localhost",))
    coordinator = CoordinatorFolder.create(root / "coordinator", settings)
    given = SiteSettings(name="a", coordinator="127.0.0.1:9443", cohort=Path("cohort.json"), device="cpu")
    return SiteFolder.create(root / "site", given, coordinator.authority_certificate, SitePolicy())


@pytest.fixture(scope="module")
def coordinator(site) -> CoordinatorFolder:
    return CoordinatorFolder.open(site.path.parent / "coordinator")


@pytest.fixture(scope="module")
def invited(coordinator) -> tuple[invitations.Invitation, Ed25519PrivateKey]:
    key, release_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    made = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return invitations.Invitation.model_validate(
        {
            "id": invitations.new_invitation_id(),
            "federation": "fuzz",
            "addresses": ("hospital.example:9443",),
            "authority_certificate": coordinator.authority_certificate.read_text(),
            **invitations.software_of_invitations(),
            "contract": CONTRACT,
            "groups": ("CT",),
            "coordinator_public_key": public_key_of(key).hex(),
            "release_public_key": public_key_of(release_key).hex(),
            "made": made,
            "expires": made + dt.timedelta(days=3),
        }
    ), key


class TestInvitation:
    @bounded
    @given(data=st.data())
    def test_as_it_comes(self, invited, tmp_path_factory, data):
        invitation, key = invited
        valid = json.loads(invitations.FORMAT.text(invitation.model_dump(mode="json"), key.sign))
        path = tmp_path_factory.getbasetemp() / "invitation.json"
        path.write_bytes(data.draw(spoilt_json(valid)))
        read = coded(lambda: invitations.read_invitation(path))
        # an invitation that is read is the one that was signed
        assert isinstance(read, FedSegError) or read == invitation

    @bounded
    @given(data=st.data())
    def test_signed_by_whoever_wrote_nonsense(self, invited, data):
        invitation, key = invited
        content = data.draw(spoilt_document(invitation.model_dump(mode="json")))
        assume(isinstance(content, dict))
        try:
            text = invitations.FORMAT.text(content, key.sign).encode("utf-8", errors="surrogatepass")
        except (ValueError, RecursionError):
            assume(False)
        read = coded(lambda: invitations.parse_invitation(text))
        assert isinstance(read, FedSegError | invitations.Invitation)


class TestJoinRequest:
    @bounded
    @given(data=st.data())
    def test_as_it_comes_and_signed(self, invited, data):
        # the same key and the same signature every time: what is drawn must not depend on anything else
        key = ec.derive_private_key(7, ec.SECP384R1())
        content = requests.make_request("a", invited[0], key).model_dump(mode="json")
        content["made"] = "2026-01-01T00:00:00Z"

        def sign(message: bytes) -> bytes:
            return key.sign(message, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))

        if data.draw(st.booleans()):
            content = data.draw(spoilt_document(content))
            assume(isinstance(content, dict))
        try:
            whole = requests.FORMAT.text(content, sign)
        except (ValueError, RecursionError):
            assume(False)
        text = data.draw(st.sampled_from((whole.encode("utf-8", errors="surrogatepass"), None)))
        if text is None:
            text = data.draw(spoilt_json(json.loads(whole)))
        read = coded(lambda: requests.parse_request(text))
        assert isinstance(read, FedSegError | requests.JoinRequest)


class TestFederationConfiguration:
    @bounded
    @given(data=st.data())
    def test_bytes(self, tmp_path_factory, data):
        preset = data.draw(st.sampled_from(preset_names()))
        path = tmp_path_factory.getbasetemp() / "federation.toml"
        path.write_bytes(data.draw(spoilt_bytes(preset_path(preset).read_bytes())))
        coded(lambda: read_federation_config(path))

    @bounded
    @given(data=st.data())
    def test_entries(self, tmp_path_factory, data):
        preset = data.draw(st.sampled_from(preset_names()))
        path = tmp_path_factory.getbasetemp() / "federation.toml"
        document = data.draw(spoilt_document(tomllib.loads(preset_path(preset).read_text())))
        path.write_text(_toml(document), encoding="utf-8", errors="replace")
        coded(lambda: read_federation_config(path))

    @pytest.mark.parametrize("text", ["a = " + "[" * 5000, "[a" + ".a" * 5000 + "]", "a = {" + "b = {" * 3000])
    def test_depth(self, tmp_path, text):
        (tmp_path / "deep.toml").write_text(text)
        assert isinstance(coded(lambda: read_federation_config(tmp_path / "deep.toml")), FedSegError)


def _toml(document: object) -> str:
    """Return a document as TOML, every value inline; JSON's spelling where TOML has none."""
    if not isinstance(document, dict):
        return json.dumps(document)
    return "\n".join(f"{json.dumps(key)} = {_inline(value)}" for key, value in document.items())


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float) and value != value:
        return "nan"
    return json.dumps(value, ensure_ascii=True).replace("Infinity", "inf")


class TestRelease:
    @bounded
    @given(data=st.data())
    def test_any_file_of_it(self, tmp_path_factory, data):
        path = _release(tmp_path_factory)
        kept = {file: file.read_bytes() for file in path.iterdir()}
        victim = data.draw(st.sampled_from(sorted(kept)))
        try:
            victim.write_bytes(data.draw(spoilt_bytes(kept[victim])))
            opened = coded(lambda: open_release(path))
            if isinstance(opened, Release):
                assert {n: a.tolist() for n, a in opened.weights().items()} == {"w": [1.0, 2.0]}
        finally:
            for file, content in kept.items():
                file.write_bytes(content)

    @bounded
    @given(data=st.data())
    def test_a_card_that_was_signed_as_it_is(self, tmp_path_factory, data):
        path = _release(tmp_path_factory)
        card = json.loads((path / "card.json").read_bytes())
        content = data.draw(spoilt_json(card))
        kept = {file: file.read_bytes() for file in path.iterdir()}
        key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        try:
            (path / "card.json").write_bytes(content)
            (path / "card.json.sig").write_bytes(key.sign(content))
            (path / "coordinator.pub").write_bytes(public_key_to_pem(public_key_of(key)))
            coded(lambda: open_release(path).weights())
        finally:
            for file, before in kept.items():
                file.write_bytes(before)


def _release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "releases"
    if not folder.exists():
        fields = {
            "name": "fuzz-CT",
            "modalities": {"CT": DEFAULT_PREPROCESSING["CT"]},
            "contract": CONTRACT,
            "network": NetworkConfig(out_channels=2),
            "patch_size": (32, 64, 64),
            "federation": "fuzz",
            "rule": "flames",
            "rounds": 3,
        }
        weights = {"w": np.array([1.0, 2.0], np.float32)}
        publish_release(folder, fields, weights, Ed25519PrivateKey.from_private_bytes(b"k" * 32))
    return next(folder.glob("fuzz-CT-*"))


COHORT = {
    "modality": "CT",
    "cases": [
        {"case": "c1", "patient": "p1", "image": "1.nii.gz", "labels": "2.nii.gz", "role": "train"},
        {"case": "c2", "patient": "p2", "image": "3.nii.gz", "labels": "4.nii.gz", "role": "validation"},
    ],
}


class TestSiteFiles:
    @bounded
    @given(data=st.data())
    def test_cohort(self, site, data):
        site.path.joinpath("cohort.json").write_bytes(data.draw(spoilt_json(COHORT)))
        read = coded(lambda: read_cohort_file(site.path / "cohort.json"))
        assert isinstance(read, FedSegError | CohortDescription)

    @bounded
    @given(data=st.data())
    def test_settings(self, site, data):
        kept = site.settings_file.read_bytes()
        try:
            site.settings_file.write_bytes(data.draw(spoilt_json(json.loads(kept))))
            assert isinstance(coded(site.settings), FedSegError | SiteSettings)
            coded(lambda: SiteFolder.open(site.path))
        finally:
            site.settings_file.write_bytes(kept)

    @bounded
    @given(data=st.data())
    def test_policy(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "policy.json"
        path.write_bytes(data.draw(spoilt_json(SitePolicy().model_dump(mode="json"))))
        assert isinstance(coded(lambda: read_policy(path)), FedSegError | SitePolicy)

    @bounded
    @given(data=st.data())
    def test_control(self, site, data):
        valid = Control(hours="22:00-06:00").model_dump(mode="json")
        site.control_file.write_bytes(data.draw(spoilt_json(valid)))
        assert isinstance(coded(lambda: read_control(site)), FedSegError | Control)
        site.control_file.unlink()

    @bounded
    @given(data=st.data())
    def test_small_state_files(self, site, data):
        site.run.mkdir(exist_ok=True)
        spoilt = data.draw(spoilt_json({"address": "/nowhere/trainer", "key": "00", "pid": 1}))
        site.trainer_address.write_bytes(spoilt)
        site.status_file.write_bytes(spoilt)
        (site.path / "approved.json").write_bytes(spoilt)
        coded(lambda: read_status(site))
        assert coded(lambda: site.approves("0" * 64)) is False
        coded(site.forget_trainer)

    @bounded
    @given(data=st.data())
    def test_own_gin_settings(self, site, data):
        valid = LocalGin(alpha=(0.0, 1.0), layers=4, kernel_sizes=(1, 3), per_batch=True).model_dump(mode="json")
        local_gin_file(site).write_bytes(data.draw(spoilt_json(valid)))
        assert isinstance(coded(lambda: read_local_gin(site)), FedSegError | LocalGin)

    @bounded
    @given(data=st.data())
    def test_journal(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("journal")
        journal = Journal(folder)
        for number in range(3):
            journal.append(Refused(code="gate.norm", round_number=number + 1))
        victim = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.name != "lock")))
        before = victim.read_bytes()
        victim.write_bytes(data.draw(spoilt_bytes(before)))
        verified = journal.verify()
        assert victim.read_bytes() == before or not verified.whole or verified.unfinished or verified.entries <= 3
        coded(lambda: list(journal.lines()))
        coded(lambda: journal.append(Refused(code="gate.norm", round_number=4)))


class TestCoordinatorFiles:
    @bounded
    @given(data=st.data())
    def test_settings_and_sites(self, coordinator, data):
        kept = coordinator.settings_file.read_bytes()
        sites = coordinator.path / "sites.json"
        try:
            coordinator.settings_file.write_bytes(data.draw(spoilt_json(json.loads(kept))))
            sites.write_bytes(data.draw(spoilt_json([{"name": "a", "node_id": 3, "fingerprint": "ab:cd"}])))
            assert isinstance(coded(coordinator.settings), FedSegError | CoordinatorSettings)
            coded(coordinator.sites)
        finally:
            coordinator.settings_file.write_bytes(kept)
            sites.unlink()


@bounded
@given(data=st.data())
def test_gin_parameters(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "gin.safetensors"
    draw_gin(GinConfig(), 1, 1, 2, sample_generator(1)).save(path)
    path.write_bytes(data.draw(spoilt_bytes(path.read_bytes())))
    read = coded(lambda: GinParameters.load(path))
    if isinstance(read, GinParameters):
        assert torch.isfinite(read.alpha).all()
