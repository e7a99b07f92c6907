"""The module opened on its Federation tab, and what a coordinator sends; nothing of the federation is imported here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import slicer
from FedSegSlicerLib.Parameters import ModalityChoice
from scene_helpers import neutral_paths, wait_until
from see_helpers import small_outline, small_scan

import FedSegSlicer as module

TOOLS = Path(__file__).resolve().parents[1] / "federation_deployment"

COORDINATE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from FedSegCore.federation.config import FederationConfig
from FedSegCore.federation.coordinator.admission import invite
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from tiny_deployment import tiny_federation

folder = Path(sys.argv[2])
made = CoordinatorFolder.create(folder, CoordinatorSettings(federation="liver-study", hosts=("localhost",)))
config = tiny_federation(name="liver-study", contract=TORSO_CONTRACT)
invite(made, folder / "invitation.json", config, 10)
"""


def make_invitation(folder: Path, port: int = 9443) -> Path:
    """Make a coordinator and return the invitation it sends, by the core itself in a process of its own."""
    script = COORDINATE.replace('hosts=("localhost",)', f'hosts=("localhost",), fleet_port={port}')
    subprocess.run([sys.executable, "-c", script, str(TOOLS), str(folder)], check=True)
    return folder / "invitation.json"


@pytest.fixture(scope="session")
def invitation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an invitation; nobody answers at its address."""
    return make_invitation(tmp_path_factory.mktemp("federation") / "coordinator")


@pytest.fixture
def open_federation(kept_session, monkeypatch):
    """Return what opens the module on the Federation tab for a site's folder, with the kept worker."""
    panels = []

    def open_(site: Path) -> "FederationPanel":
        monkeypatch.setattr(module.FedSegSlicerLogic, "makeSession", lambda self: kept_session)
        panels.append(FederationPanel(site))
        return panels[-1]

    yield open_
    for panel in panels:
        panel.close()


class FederationPanel:
    """The module's widget, opened as Slicer opens it, on the Federation tab."""

    def __init__(self, site: Path):
        self.widget = module.FedSegSlicerWidget()
        self.widget.setup()
        self.own = self.widget.parent._qt_object
        self.own.isEntered = True
        self.own.resize(440, 900)
        self.widget.parent.show()
        self.ui = self.widget.ui
        self.ui.fedSitePathEdit.currentPath = str(site)
        self.widget.enter()
        self.ui.tabWidget.setCurrentWidget(self.ui.federationTab)
        self.tab = self.widget.federationTab
        self.logic = self.tab.logic
        wait_until(lambda: self.logic.facts is not None)
        self.idle()

    @property
    def parameters(self):
        return self.widget._parameters

    def idle(self):
        wait_until(lambda: not self.logic.doing)
        slicer.app.processEvents()

    def open(self, invitation: Path):
        self.ui.fedInvitationPathEdit.currentPath = str(invitation)
        self.idle()

    def join(self, invitation: Path, name: str = "north"):
        self.open(invitation)
        self.ui.fedNameLineEdit.setText(name)
        self.ui.fedJoinButton.click()
        wait_until(lambda: self.logic.cohort is not None)
        self.idle()
        assert self.own.minimumSizeHint().width() <= 440  # Slicer would scroll sideways

    def choose_case(self, kind: str = "CT", patient: str = "4711"):
        """Choose a scan of the scene and its outline, say what kind of image it is, and what is not outlined."""
        ui = self.ui
        ui.fedAddCollapsibleButton.collapsed = False
        volume = small_scan("CT", "CT abdomen")
        ui.fedModalityComboBox.setCurrentIndex([choice.value for choice in ModalityChoice].index(kind))
        ui.fedVolumeSelector.setCurrentNode(volume)
        ui.fedSegmentationSelector.setCurrentNode(small_outline(volume))
        ui.fedPatientLineEdit.setText(patient)
        outlined = {self.parameters.fedSegmentation.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)}
        for structure, choice in self.tab.cohort._choices.items():
            choice.setCurrentIndex(0 if structure in outlined else 1)

    def check_case(self):
        """Press the button and wait for what is found."""
        self.ui.fedCheckCaseButton.click()
        wait_until(lambda: self.logic.offer is not None)
        self.idle()

    def journal(self):
        """Wait until the journal has been read, and return what is shown of it."""
        reader = self.tab.records.reader
        wait_until(lambda: reader.told is not None and not reader.isReading)
        return [row[1] for row in self.rows(self.ui.fedJournalTable)]

    def picture(self, path: Path):
        for _turn in range(3):
            slicer.app.processEvents()
        for _turn in range(3):  # rows of tables are as high as their words only when they are as wide as shown
            height = self.own.layout().minimumSize().height()
            wrapped = self.own.layout().heightForWidth(440) if self.own.layout().hasHeightForWidth() else height
            self.own.resize(440, max(400, height + 60, wrapped + 10))
            slicer.app.processEvents()
        with neutral_paths(self.own):
            assert self.own.grab().save(str(path))

    def rows(self, table):
        return [
            [table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)
        ]

    def close(self):
        self.widget.cleanup()
        self.own.deleteLater()


SERVE = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from FedSegCore.common.progress import Progress
from FedSegCore.federation.coordinator.admission import add_request, admit, invite
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.federation.coordinator.follow import follow_run, write_run
from FedSegCore.federation.coordinator.releasing import plan_delivery, publish_run
from FedSegCore.federation.coordinator.runs import ControlClient
from FedSegCore.federation.coordinator.service import CoordinatorProcesses
from FedSegCore.federation.join_request import read_request
from FedSegCore.federation.process_group import free_ports, stop_trees
from tiny_deployment import tiny_federation, write_cohort

root = Path(sys.argv[2])
fleet, control_port = free_ports(2)
settings = {"federation": "tiny", "hosts": ("127.0.0.1",), "fleet_host": "127.0.0.1"}
folder = CoordinatorFolder.create(
    root / "coordinator", CoordinatorSettings(**settings, fleet_port=fleet, control_port=control_port)
)
config = tiny_federation(min_sites=1, rounds=1)
write_cohort(root / "images", 1, 3)
processes = CoordinatorProcesses(folder)


def until(file):
    end = time.monotonic() + 120.0
    while not file.exists() and time.monotonic() < end:
        processes.tick()
        time.sleep(0.1)


try:
    processes.start()
    with ControlClient(folder) as control:
        control.wait_until_up(Progress())
        invite(folder, root / "invitation.json", config, 1)
        until(root / "request.json")
        add_request(folder, root / "request.json")
        admit(folder, control, "north", read_request(root / "request.json").fingerprint)
        until(root / "go")
        run = write_run(folder, "run", config)
        follow_run(control, run, control.start("run"), Progress(), processes.tick)
        publish_run(folder, "run")
        plan_delivery(folder, "run")
        follow_run(control, run, control.start("run", deliver=True), Progress(), processes.tick)
        until(root / "end")
finally:
    stop_trees(processes.processes())
"""

ALLOW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.policy import write_policy
from tiny_deployment import tiny_policy
write_policy(SiteFolder(Path(sys.argv[2])).policy_file, tiny_policy())
"""


def serve(root: Path) -> "subprocess.Popen[bytes]":
    """Start a coordinator with a real SuperLink that invites, admits ``request.json`` and, told to ``go``, trains,
    publishes and delivers."""
    return subprocess.Popen([sys.executable, "-c", SERVE, str(TOOLS), str(root)])


def allow_few_patients(site: Path) -> None:
    """Give a site a policy for cohorts of any size."""
    subprocess.run([sys.executable, "-c", ALLOW, str(TOOLS), str(site)], check=True)


NOTE = """
import json
import sys
from pathlib import Path
from pydantic import TypeAdapter
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Entry
SiteFolder(Path(sys.argv[1])).journal.append(TypeAdapter(Entry).validate_python(json.loads(sys.argv[2])))
"""


def add_to_journal(site: Path, entry: dict) -> None:
    """Add an entry to a site's journal, as its own processes do."""
    subprocess.run([sys.executable, "-c", NOTE, str(site), json.dumps(entry)], check=True)
