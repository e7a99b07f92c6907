"""Whose models Segment uses: with a site only its coordinator's; without one every model says that nobody knows."""

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from FedSegSlicerLib.SegmentationResult import findResult
from FedSegSlicerLib.Settings import SITE_FOLDER, writeSetting
from panel_helpers import answering
from scene_helpers import load_volume, wait_until
from test_release_news import sent  # noqa: F401 - a fixture

from FedSegCore.models.signing import public_key_of, public_key_to_pem
from FedSegCore.models.verification import CARD, PUBLIC_KEY, SIGNATURE

pytestmark = pytest.mark.slicer


@pytest.fixture
def member(sent, open_panel, patients, tmp_path):  # noqa: F811 - the fixture
    """The panel of a member, with its coordinator's models and a stranger's in the folder; and that folder."""
    folder = shutil.copytree(sent / "releases", tmp_path / "models")
    writeSetting(SITE_FOLDER, str(sent / "site"))
    load_volume(patients["CT"])
    panel = open_panel(folder)
    panel.ready()
    return panel, folder


def listed(panel):
    combo = panel.ui.releaseComboBox
    return [combo.itemText(number) for number in range(combo.count)]


def sign_again(release):
    """Sign a release with another key, as anybody can."""
    key = Ed25519PrivateKey.generate()
    (release / SIGNATURE).write_bytes(key.sign((release / CARD).read_bytes()))
    (release / PUBLIC_KEY).write_bytes(public_key_to_pem(public_key_of(key)))


def test_a_strangers_model_is_refused_and_the_coordinators_is_used(member):
    panel, _folder = member
    assert listed(panel) == ["sent-CT, version 2", "sent-CT, version 1"]
    assert "release.signer-unknown" in panel.ui.messageLabel.text
    assert "strange-CT-v1" in panel.ui.messageLabel.text
    assert "models of its own coordinator only" in panel.ui.messageLabel.text
    assert "the coordinator of this computer's site" in panel.ui.aboutLabel.text
    panel.ui.segmentButton.click()
    panel.idle()
    assert "sent-CT-v2" in panel.ui.resultLabel.text
    assert "Signer unknown" not in panel.ui.resultLabel.text


def test_a_model_that_was_signed_again_since_it_was_listed_is_not_used(member):
    panel, folder = member
    sign_again(folder / "sent-CT-v2")
    panel.ui.segmentButton.click()
    panel.idle()
    assert "release.signer-unknown" in panel.ui.messageLabel.text
    assert findResult(panel.parameters.inputVolume) is None
    panel.widget.enter()
    wait_until(lambda: listed(panel) == ["sent-CT, version 1"])


@pytest.mark.parametrize("site", ["", "being typed"])
def test_without_a_site_every_model_says_that_its_signer_is_unknown(member, site):
    panel, _folder = member
    writeSetting(SITE_FOLDER, site)
    panel.widget.segmentTab.refresh()
    wait_until(lambda: len(listed(panel)) == 3)
    assert all(words.endswith("(signer unknown)") for words in listed(panel))
    assert "Signer unknown" in panel.ui.aboutLabel.text
    panel.ui.segmentButton.click()
    panel.idle()
    assert "Signer unknown" in panel.ui.resultLabel.text


def test_no_model_is_used_while_the_sites_folder_is_out_of_reach(member, sent, tmp_path):  # noqa: F811 - the fixture
    """Any signer's would be, as where there is no site: its disk may only not be connected."""
    panel, _folder = member
    ui, site = panel.ui, tmp_path / "site"
    ui.seeSitePathEdit.currentPath = ""
    wait_until(lambda: len(listed(panel)) == 3)  # Segment follows what is chosen under See
    ui.seeSitePathEdit.currentPath = str(shutil.copytree(sent / "site", site))
    wait_until(lambda: len(listed(panel)) == 2)
    away = site.rename(tmp_path / "elsewhere")
    ui.segmentButton.click()
    assert "site.unreachable" in ui.messageLabel.text
    assert findResult(panel.parameters.inputVolume) is None
    panel.widget.enter()
    wait_until(lambda: listed(panel) == [])
    assert "site.unreachable" in ui.messageLabel.text
    assert not ui.segmentButton.enabled
    away.rename(site)
    panel.widget.enter()
    wait_until(lambda: listed(panel) == ["sent-CT, version 2", "sent-CT, version 1"])
    assert not ui.messageLabel.text.startswith("Your site")


def test_what_segment_trusts_follows_a_site_that_is_deleted_and_joins_another(
    sent, open_panel, patients, invitation, tmp_path  # noqa: F811 - the fixture
):  # fmt: skip
    site = shutil.copytree(sent / "site", tmp_path / "site")
    writeSetting(SITE_FOLDER, str(site))
    load_volume(patients["CT"])
    panel = open_panel(sent / "releases")
    ui, federation = panel.ui, panel.widget.federationTab.logic
    wait_until(lambda: listed(panel) == ["sent-CT, version 2", "sent-CT, version 1"])
    ui.tabWidget.setCurrentWidget(ui.federationTab)
    wait_until(lambda: federation.facts is not None and not federation.doing)
    answering("Leave")
    ui.fedLeaveButton.click()
    wait_until(lambda: federation.facts.state == "left" and not federation.doing)
    answering("Delete")
    ui.fedForgetButton.click()
    wait_until(lambda: len(listed(panel)) == 3)
    assert all(words.endswith("(signer unknown)") for words in listed(panel))
    wait_until(lambda: not federation.doing)
    ui.fedInvitationPathEdit.currentPath = str(invitation)
    wait_until(lambda: federation.invitation is not None and not federation.doing)
    ui.fedNameLineEdit.setText("north")
    ui.fedJoinButton.click()
    wait_until(lambda: listed(panel) == [])  # all of them are of another coordinator
    assert "release.signer-unknown" in ui.messageLabel.text
