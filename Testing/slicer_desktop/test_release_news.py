"""A model that the coordinator sends appears in Segment by itself, with a notice, wherever Segment keeps its models."""

import shutil
import subprocess
import sys

import pytest
import slicer
from federation_helpers_desktop import COORDINATE, TOOLS
from FedSegSlicerLib.QtTimer import callLater
from FedSegSlicerLib.ReleaseNews import ReleaseNews, arrivedAt
from FedSegSlicerLib.Settings import RELEASES_FOLDER, SITE_FOLDER, readSetting, writeSetting
from FedSegSlicerLib.WorkerSession import WorkerSession
from panel_helpers import check_nothing_is_clipped
from scene_helpers import keep_pictures, load_volume, wait_until

pytestmark = pytest.mark.slicer

JOIN = (
    COORDINATE
    + """
from FedSegCore.federation.site.joining import join
from FedSegCore.models.release import open_release, publish_release
from FedSegCore.models.signing import load_or_make_key
join(folder.parent / "site", folder / "invitation.json", "north")
known = open_release(Path(sys.argv[3]))
fields = {name: getattr(known.card, name) for name in type(known.card).model_fields}
for name in ("version", "weights_sha256", "created", "software"):
    del fields[name]
for name in ("sent-CT", "sent-CT", "strange-CT"):
    key = load_or_make_key(folder.parent / "strange.key" if name == "strange-CT" else made.release_key)
    publish_release(folder.parent / "releases", {**fields, "name": name}, known.weights(), key)
"""
)


@pytest.fixture(scope="module")
def sent(tmp_path_factory, releases):
    """A folder with a member's folder ``site`` and its coordinator's ``releases``: sent-CT in two versions, one of a
    stranger."""
    root = tmp_path_factory.mktemp("sent")
    command = [sys.executable, "-c", JOIN, str(TOOLS), str(root / "coordinator"), str(releases / "tiny-CT-v2")]
    subprocess.run(command, check=True)
    return root


@pytest.fixture
def site(sent, tmp_path):
    """A copy of the member's folder, to which nothing was sent yet."""
    return shutil.copytree(sent / "site", tmp_path / "site")


def send(sent, site, release):
    """Put a release where the site's client app puts what the coordinator sends."""
    (site / "releases").mkdir(exist_ok=True)
    shutil.copytree(sent / "releases" / release, site / "releases" / release)


def test_it_is_checked_on_its_way_into_segments_own_folder_and_announced_once(open_panel, sent, site, tmp_path):
    own = tmp_path / "models"
    own.mkdir()
    panel = open_panel(own)
    writeSetting(SITE_FOLDER, str(site))
    news, told = panel.widget.federationTab.news, []
    news.arrived.connect(told.append)
    assert not panel.ui.noticeLabel.isVisible()
    send(sent, site, "sent-CT-v1")
    wait_until(lambda: told == ["sent-CT-v1"])
    assert panel.ui.noticeLabel.isVisible()
    assert "sent-CT-v1" in panel.ui.noticeLabel.text
    wait_until(lambda: panel.widget.segmentTab._choices.releases)
    assert [release.id for release in panel.widget.segmentTab._choices.releases] == ["sent-CT-v1"]
    assert readSetting(RELEASES_FOLDER) == str(own)
    shutil.rmtree(own / "sent-CT-v1")  # the user does not want it: it does not come back
    news.look()
    send(sent, site, "strange-CT-v1")
    wait_until(lambda: "release.signer-unknown" in panel.ui.fedMessageLabel.text)
    send(sent, site, "sent-CT-v2")
    wait_until(lambda: told == ["sent-CT-v1", "sent-CT-v2"])
    assert [path.name for path in own.iterdir()] == ["sent-CT-v2"]
    panel.widget.exit()
    assert not panel.ui.noticeLabel.isVisible()
    panel.widget.enter()
    slicer.app.processEvents()
    assert not panel.ui.noticeLabel.isVisible()
    assert told == ["sent-CT-v1", "sent-CT-v2"]


def test_without_a_folder_of_its_own_segment_looks_into_the_sites(open_panel, sent, site, patients, tmp_path):
    panel = open_panel("")
    writeSetting(SITE_FOLDER, str(site))
    send(sent, site, "sent-CT-v1")
    wait_until(lambda: panel.ui.noticeLabel.isVisible())
    assert panel.ui.releasesPathEdit.currentPath == str(site / "releases")
    panel.ui.inputSelector.setCurrentNode(load_volume(patients["CT"], "CT abdomen"))
    panel.ready()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    check_nothing_is_clipped(panel)
    panel.picture(pictures / "segment-tab-new-model.png")
    keep_pictures(pictures)


def test_what_is_no_release_is_passed_over(sent, site):
    assert arrivedAt("") == []
    assert arrivedAt(str(site)) == []
    send(sent, site, "sent-CT-v1")
    (site / "releases" / ".arriving-x").mkdir()
    (site / "releases" / "notes").mkdir()
    assert [path.name for path in arrivedAt(str(site))] == ["sent-CT-v1"]


def test_without_a_worker_it_is_tried_again(kept_session: WorkerSession, sent, site, tmp_path):
    class Dead:
        def request(self, _method, _params, _onResult, onError):
            from FedSegSlicerLib.Errors import UserError

            onError(UserError("worker.ended", "", ""))

    writeSetting(SITE_FOLDER, str(site))
    writeSetting(RELEASES_FOLDER, str(tmp_path / "models"))
    send(sent, site, "sent-CT-v1")
    dead = ReleaseNews(Dead(), callLater)
    problems = []
    dead.failed.connect(problems.append)
    dead.look()
    assert problems == []
    news, told = ReleaseNews(kept_session, callLater), []
    news.arrived.connect(told.append)
    news.look()
    wait_until(lambda: told == ["sent-CT-v1"])
