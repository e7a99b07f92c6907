"""Every button and setting of the Federation tab that no story of another test presses, with the real worker."""

import json
import shutil
import socket
import time

import pytest
import qt
import slicer
from federation_helpers_desktop import make_invitation
from FedSegSlicerLib import CohortPanel
from FedSegSlicerLib.FederationLogic import FederationLogic
from FedSegSlicerLib.QtWorkerProcess import QtWorkerProcess
from FedSegSlicerLib.RuntimeLocator import RuntimeLocator
from FedSegSlicerLib.Settings import RELEASES_FOLDER, writeSetting
from FedSegSlicerLib.VolumeExchange import VolumeExchange
from FedSegSlicerLib.WorkerSession import WorkerSession
from PySide6 import QtCore, QtWidgets
from PySide6.QtTest import QTest
from scene_helpers import wait_until
from test_federation_states import write_rounds, write_state

pytestmark = pytest.mark.slicer


@pytest.fixture
def panel(open_federation, invitation, tmp_path):
    """The tab of a site that has joined."""
    made = open_federation(tmp_path / "site")
    made.join(invitation)
    return made


def choosing(path):
    """Choose this file or folder in the dialog about to be shown."""

    def choose():
        dialog = QtWidgets.QApplication.activeModalWidget()
        dialog.findChild(QtWidgets.QLineEdit, "fileNameEdit").setText(str(path))
        dialog.accept()

    qt.QTimer.singleShot(200, choose)


def test_a_case_that_looks_wrong_is_added_by_who_has_looked_and_its_consent_is_taken_back(panel, monkeypatch):
    ui = panel.ui
    panel.choose_case(kind="MR")
    for choice in panel.tab.cohort._choices.values():
        choice.setCurrentIndex(1)  # nothing is outlined, as in a patient without any lesion
    panel.check_case()
    assert panel.logic.offer["refused"] == ["case.empty"]
    assert ui.fedAddButton.toolTip == "What was found keeps the case out."
    assert ui.fedAcceptCheckBox.isVisible()
    ui.fedConsentLineEdit.setText("Dr. House")
    ui.fedAcceptCheckBox.setChecked(True)
    assert ui.fedAddButton.enabled
    monkeypatch.setattr(CohortPanel, "today", lambda: "2021-05-01")  # Slicer was left open overnight
    ui.fedAddButton.click()
    wait_until(lambda: ui.fedCaseTable.rowCount == 1)
    panel.idle()
    assert panel.rows(ui.fedCaseTable) == [["CT abdomen", "train", "Dr. House, 2021-05-01"]]
    assert panel.logic.cohort["modality"] == "MR"
    assert (ui.fedPatientLineEdit.text, ui.fedConsentLineEdit.text) == ("", "Dr. House")
    assert ui.fedRevokeButton.toolTip == "Choose a case in the table first."
    ui.fedCaseTable.selectRow(0)
    ui.fedRevokeButton.click()
    wait_until(lambda: panel.rows(ui.fedCaseTable)[0][2].startswith("taken back"))
    panel.idle()
    assert ui.fedRevokeButton.toolTip == "There is no consent to take back."
    ui.fedConsentDateEdit.setDate(qt.QDate(2021, 4, 1))
    monkeypatch.setattr(CohortPanel, "today", lambda: "2021-05-02")
    panel.tab.cohort.update()
    assert ui.fedConsentDateEdit.date == qt.QDate(2021, 4, 1)  # a day that was chosen stays


def test_the_tab_key_goes_from_the_patient_through_the_structures_to_the_check(panel):
    panel.choose_case()  # the choices are made anew; the former ones go with the next turn of the event loop
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    panel.ui.fedPatientLineEdit.setFocus()
    reached = []
    for _step in range(7):
        reached.append(QtWidgets.QApplication.focusWidget())
        QTest.keyClick(reached[-1], QtCore.Qt.Key.Key_Tab)
    choices = [choice._qt_object for choice in panel.tab.cohort._choices.values()]
    assert reached == [panel.ui.fedPatientLineEdit._qt_object, *choices, panel.ui.fedCheckCaseButton._qt_object]


def test_the_check_names_each_layer_and_its_table_is_read_by_keyboard(open_federation, tmp_path):
    panel = open_federation(tmp_path / "site")
    with socket.socket() as taken:  # it does not listen; at the usual port somebody's coordinator may
        taken.bind(("localhost", 0))
        panel.join(make_invitation(tmp_path / "coordinator", taken.getsockname()[1]))
        check_names_each_layer(panel)


def check_names_each_layer(panel):
    ui = panel.ui
    ui.fedCheckCollapsibleButton.collapsed = False
    ui.fedJournalCollapsibleButton.collapsed = False
    panel.journal()
    ui.fedLeftCheckBox.setChecked(False)
    ui.fedCheckButton.click()
    assert not ui.fedCheckButton.enabled
    for button in (ui.fedCheckButton, ui.fedFolderButton, ui.fedImportButton, ui.fedRunButton):
        assert button.toolTip.startswith("Wait until this is done: "), button.name
    wait_until(lambda: panel.logic.check is not None)
    panel.idle()
    assert ui.fedCheckLabel.text == "Something keeps the site from taking part:"
    rows = {row[0][2:]: (row[0][0], row[1]) for row in panel.rows(ui.fedCheckTable)}
    assert rows["Journal"] == ("✓", "The journal is whole: 2 entries.")
    assert rows["Port"][0] == "✗"
    assert rows["Admission"][0] == "–"
    assert (rows["Cases"][0], "note the consent" in rows["Cases"][1]) == ("✗", True)
    assert ui.fedCheckButton.toolTip.startswith("Finds out what keeps this site")
    for table in (ui.fedCheckTable, ui.fedJournalTable):
        own = table._qt_object
        own.setFocus()
        for _row in range(table.rowCount):
            QTest.keyClick(own, QtCore.Qt.Key.Key_Down)
        assert own.currentRow() == table.rowCount - 1
        assert own.visualItemRect(own.currentItem()).intersects(own.viewport().rect())
        QTest.keyClick(own, QtCore.Qt.Key.Key_Tab)
        assert not own.hasFocus()  # it is no trap


def test_a_folder_of_cases_can_be_cancelled_and_what_was_added_stays(panel, patients, tmp_path):
    ui, folder = panel.ui, tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        shutil.copy(patients["CT"], folder / f"scan{number:02}.nii.gz")
        shutil.copy(patients["CT.labels"], folder / f"scan{number:02}.seg.nrrd")
    ui.fedAddCollapsibleButton.collapsed = False
    assert not ui.fedCancelButton.isVisible()
    choosing(folder)
    ui.fedFolderButton.click()
    wait_until(lambda: ui.fedProgressLabel.text in ("Case 3 of 40…", "Case 4 of 40…", "Case 5 of 40…"))
    assert ui.fedCancelButton.isVisible()
    assert ui.fedCancelButton.enabled
    pressed = time.monotonic()
    ui.fedCancelButton.click()
    assert (ui.fedCancelButton.enabled, ui.fedProgressLabel.text) == (False, "Cancelling…")
    wait_until(lambda: "Cancelled" in ui.fedMessageLabel.text, 2.0)
    assert time.monotonic() - pressed < 10.0
    panel.idle()
    assert ui.fedMessageLabel.text == "Cancelled. Cases that were added before stay."
    assert ui.fedCaseTable.rowCount == 1  # the others are the same image
    assert not ui.fedCancelButton.isVisible()
    panel.choose_case(patient="another")
    ui.fedCheckCaseButton.click()
    ui.fedCancelButton.click()  # while the volume is still being written for the worker
    panel.idle()
    assert panel.logic.offer is None
    panel.check_case()  # it can be done again at once
    assert panel.logic.offer["refused"] == []


def test_settings_request_plot_and_a_file_that_is_no_model(panel, tmp_path):
    ui, site = panel.ui, tmp_path / "site"
    choosing(tmp_path / "request.json")
    ui.fedSaveRequestButton.click()
    assert '"north"' in (tmp_path / "request.json").read_text()
    ui.fedHoursCheckBox.setChecked(True)
    ui.fedFromTimeEdit.setTime(qt.QTime(22, 30))
    ui.fedToTimeEdit.setTime(qt.QTime(5, 45))
    ui.fedDeviceComboBox.setCurrentIndex(1)
    ui.fedApplyButton.click()
    wait_until(lambda: panel.logic.facts.member["hours"] == "22:30-05:45")
    panel.idle()
    assert panel.logic.facts.member["device"] == "cpu"
    assert json.loads((site / "control.json").read_text())["device"] == "cpu"
    panel.logic.session.devices = ["auto", "cpu"]
    ui.fedDeviceComboBox.setCurrentIndex(2)
    assert not ui.fedApplyButton.enabled
    assert ui.fedApplyButton.toolTip.startswith("There is no graphics card here")
    ui.fedDeviceComboBox.setCurrentIndex(1)
    ui.fedHoursCheckBox.setChecked(False)
    assert not ui.fedFromTimeEdit.enabled
    ui.fedApplyButton.click()
    wait_until(lambda: panel.logic.facts.member["hours"] is None)
    panel.idle()
    assert ui.fedPlotButton.toolTip == "There is nothing to plot yet."
    write_rounds(site, 2)
    panel.logic.look()
    wait_until(lambda: ui.fedPlotButton.enabled)
    ui.fedPlotButton.click()
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    writeSetting(RELEASES_FOLDER, str(tmp_path / "models"))
    (tmp_path / "holiday.zip").write_bytes(b"no zip")
    ui.fedReleaseCollapsibleButton.collapsed = False
    choosing(tmp_path / "holiday.zip")
    ui.fedImportButton.click()
    wait_until(lambda: "import.unreadable" in ui.fedMessageLabel.text)
    assert not (tmp_path / "models" / "holiday").exists()


def test_a_site_that_was_shut_out_comes_back_with_a_new_invitation(panel, invitation, tmp_path):
    ui = panel.ui
    before = panel.logic.facts.member["fingerprint"]
    status = {"processes": "ended", "code": "site.expelled", "what": "Shut out.", "remedy": "Ask."}
    write_state(tmp_path / "site", status, {}, 0)
    panel.logic.look()
    wait_until(lambda: "site.expelled" in ui.fedStateLabel.text)
    assert ui.fedJoinCollapsibleButton.isVisible()
    assert ui.fedForgetButton.isVisible()
    assert (ui.fedNameLineEdit.text, ui.fedNameLineEdit.enabled) == ("north", False)
    panel.open(invitation)
    ui.fedJoinButton.click()
    wait_until(lambda: panel.logic.facts.state == "request-sent")
    panel.idle()
    assert panel.logic.facts.member["fingerprint"] != before
    assert not ui.fedJoinCollapsibleButton.isVisible()
    assert ui.fedRequestCollapsibleButton.isVisible()


def test_that_the_state_is_not_known_any_more_is_told(panel, kept_session, monkeypatch):
    ui = panel.ui
    nothing = RuntimeLocator(lambda: "/no/runtime", slicer.util.startupEnvironment)
    with monkeypatch.context() as changed:
        changed.setattr(kept_session, "locator", nothing)
        kept_session.stop()
        wait_until(lambda: "How the site stands is not known since" in ui.fedStateLabel.text)
        assert time.strftime("%H:", time.localtime(panel.logic.seenAt)) in ui.fedStateLabel.text
        assert "This is how it stood then:" in ui.fedStateLabel.text
    wait_until(lambda: "not known" not in ui.fedStateLabel.text)  # the worker is there again
    assert "Not yet admitted" in ui.fedStateLabel.text


def test_another_folder_cancels_what_is_done_for_the_former_and_leaves_no_outlines_behind(panel, patients, tmp_path):
    ui, folder = panel.ui, tmp_path / "images"
    panel.choose_case()
    ui.fedCheckCaseButton.click()
    wait_until(lambda: panel.logic._request is not None)
    outlines = lambda: list(panel.logic._handover._exchange.folder().glob("case-*"))  # noqa: E731
    assert len(outlines()) == 1
    request = panel.logic._request
    ui.fedSitePathEdit.currentPath = str(tmp_path / "another")
    wait_until(lambda: request.isDone)
    assert outlines() == []
    ui.fedSitePathEdit.currentPath = str(tmp_path / "site")
    wait_until(lambda: panel.logic.cohort is not None)
    panel.idle()
    folder.mkdir()
    for number in range(40):
        shutil.copy(patients["CT"], folder / f"scan{number:02}.nii.gz")
        shutil.copy(patients["CT.labels"], folder / f"scan{number:02}.seg.nrrd")
    panel.tab.cohort.addFolder(str(folder))
    wait_until(lambda: ui.fedProgressLabel.text in ("Case 3 of 40…", "Case 4 of 40…", "Case 5 of 40…"))
    request = panel.logic._request
    ui.fedSitePathEdit.currentPath = str(tmp_path / "another")
    assert request.isCancelled
    wait_until(lambda: request.isDone, 5)
    wait_until(lambda: panel.logic.facts is not None)
    assert panel.logic.facts.member is None


def test_leaving_and_returning_at_once_does_not_look_twice_as_often():
    due = []
    locator = RuntimeLocator(lambda: "/no/runtime", slicer.util.startupEnvironment)
    later = lambda _milliseconds, function: due.append(function)  # noqa: E731
    logic = FederationLogic(WorkerSession(locator, QtWorkerProcess, later), VolumeExchange(later), later)
    for _turn in range(3):
        logic.watch(True)
        logic.watch(False)
    logic.watch(True)
    for _turn in range(3):
        waiting, due[:] = list(due), []
        for function in waiting:
            function()
    assert len(due) == 1
    logic.watch(False)
    due.pop()()
    assert due == []


def test_what_was_said_of_one_case_is_shown_for_the_next_and_can_be_taken_back(panel):
    ui, cohort = panel.ui, panel.tab.cohort
    chosen = lambda: {name: choice.currentText for name, choice in cohort._choices.items()}  # noqa: E731
    panel.choose_case()
    outlined, other = (next(n for n, c in cohort._choices.items() if c.currentIndex == index) for index in (0, 1))
    cohort._choices[outlined].setCurrentIndex(cohort._choices[outlined].findText(outlined))
    said = chosen()
    assert (said[outlined], said[other]) == (outlined, "I do not outline it")
    panel.check_case()
    ui.fedAddButton.click()
    wait_until(lambda: ui.fedCaseTable.rowCount == 1)
    panel.idle()
    assert chosen() == said
    segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    segment = next(s for s in map(segmentation.GetSegmentation().GetNthSegment, range(2)) if s.GetName() == outlined)
    segment.SetName("Leber")
    cohort.update()
    assert chosen() == said  # also the name that this case does not have
    assert cohort._naming()[outlined] == [outlined]
    cohort._choices[other].setCurrentIndex(0)
    assert chosen()[other] == "by its code or name"
    assert cohort._naming()[other] is None
    plain = next(name for name, words in said.items() if words == "by its code or name")
    assert plain not in cohort._naming()
