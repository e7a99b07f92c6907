"""Every state of the Federation tab, through its real .ui, with the real worker as a QProcess."""

import math

import pytest
import qt
import slicer
from FedSegSlicerLib.Settings import SITE_FOLDER, readSetting
from panel_helpers import answering
from scene_helpers import keep_pictures, wait_until

import FedSegSlicer as module

pytestmark = pytest.mark.slicer


def test_no_cases_are_shown_before_they_are_known():
    widget = module.FedSegSlicerWidget()
    widget.setup()
    for part in (widget.ui.fedCaseTable, widget.ui.fedCohortLabel):
        assert part.isHidden()
    widget.cleanup()
    widget.parent._qt_object.deleteLater()


def test_from_invitation_to_cases_settings_and_journal(open_federation, invitation, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    panel = open_federation(tmp_path / "site")
    ui = panel.ui
    assert "Not a member" in ui.fedStateLabel.text
    assert not ui.fedJoinButton.enabled
    assert ui.fedJoinButton.toolTip == "Open the invitation first."
    assert not ui.fedTrainingCollapsibleButton.isVisible()
    assert not ui.fedPolicyCollapsibleButton.isVisible()
    panel.picture(pictures / "federation-1-not-a-member.png")
    panel.open(invitation)
    assert "liver-study" in ui.fedInvitationLabel.text
    ui.fedPolicyCollapsibleButton.collapsed = False  # and not in a tip, which no keyboard reaches
    assert "Leaves the site: the model's tensors" in ui.fedPolicyLabel.text
    assert "A server may ask for at most" in ui.fedPolicyLabel.text
    assert ui.fedPolicyLabel.isVisible()
    assert ui.fedPolicyLabel.focusPolicy & qt.Qt.TabFocus
    assert ui.fedJoinButton.toolTip == "Give your site a name."
    ui.fedNameLineEdit.setText("north")
    ui.fedToldLineEdit.setText("0000-0000-0000-0000-0000")
    ui.fedJoinButton.click()
    panel.idle()
    assert "invitation.other-coordinator" in ui.fedMessageLabel.text
    assert not (tmp_path / "site").exists()
    panel.picture(pictures / "federation-2-invitation.png")
    ui.fedToldLineEdit.setText(panel.logic.invitation["fingerprint"])
    panel.join(invitation)
    assert readSetting(SITE_FOLDER) == ui.seeSitePathEdit.currentPath == str(tmp_path / "site")
    wait_until(lambda: "Not yet admitted" in ui.fedStateLabel.text)
    ui.fedCopyButton.click()
    assert qt.QApplication.clipboard().text() == panel.logic.facts.member["fingerprint"]
    panel.tab.saveRequestTo(tmp_path / "request.json")
    assert '"north"' in (tmp_path / "request.json").read_text()
    panel.picture(pictures / "federation-3-request.png")

    assert ui.fedCheckCaseButton.toolTip == "Choose the volume of the case."
    panel.choose_case(patient="")
    assert ui.fedCheckCaseButton.toolTip == "Give your id of the patient."
    ui.fedPatientLineEdit.setText("4711")
    assert ui.fedAddButton.toolTip == "Check the case first."
    panel.check_case()
    assert "This case can be added." in ui.fedFindingsLabel.text, ui.fedFindingsLabel.text
    panel.picture(pictures / "federation-4-case-checked.png")
    ui.fedAddButton.click()
    wait_until(lambda: ui.fedCaseTable.rowCount == 1)
    panel.idle()
    assert panel.rows(ui.fedCaseTable) == [["CT abdomen", "train", "none yet: not used"]]
    assert ui.fedPatientLineEdit.text == ""  # the next volume may be another patient's
    assert not ui.fedCaseTable.item(0, 0).icon().isNull()
    assert ui.fedConsentButton.toolTip == "Choose a case in the table first."
    ui.fedCaseTable.selectRow(0)
    assert ui.fedConsentButton.toolTip == "Say who consented."
    ui.fedConsentLineEdit.setText("Dr. House")
    ui.fedConsentDateEdit.setDate(qt.QDate(2026, 1, 31))
    ui.fedConsentButton.click()
    wait_until(lambda: panel.rows(ui.fedCaseTable)[0][2] == "Dr. House, 2026-01-31")
    panel.idle()
    assert ui.fedCohortLabel.text.startswith("In use: 1 to train on, 0 to score on.")
    saved = slicer.mrmlScene.GetFirstNodeByName("FedSegSlicer")
    kept = " ".join(saved.GetParameter(name) for name in saved.GetParameterNames())
    assert "4711" not in kept
    assert str(tmp_path) not in kept

    assert ui.fedApplyButton.toolTip == "These settings are in use."
    ui.fedHoursCheckBox.setChecked(True)
    ui.fedCoresSpinBox.setValue(1)
    ui.fedApplyButton.click()
    wait_until(lambda: panel.logic.facts.member["hours"] == "19:00-07:00")
    panel.idle()
    assert panel.logic.facts.member["cores_free"] == 1
    assert ui.fedMessageLabel.text == "Saved. The site goes by these settings."
    ui.fedPauseButton.click()
    wait_until(lambda: ui.fedPauseButton.text == "Resume")
    assert "Not yet admitted" in ui.fedStateLabel.text
    assert "It is also paused: somebody here paused it." in ui.fedStateLabel.text
    assert ui.fedRequestCollapsibleButton.isVisible()
    panel.idle()
    panel.picture(pictures / "federation-5-paused.png")
    ui.fedJournalCollapsibleButton.collapsed = False
    assert panel.journal() == ["Nothing has left this computer."]
    ui.fedLeftCheckBox.setChecked(False)
    assert [row.split(":")[0] for row in panel.journal()[:3]] == ["control", "consent given", "case added"]
    assert ui.fedJournalLabel.text == "The journal is whole: 5 entries."
    panel.picture(pictures / "federation-6-journal.png")
    ui.fedCaseTable.selectRow(0)
    answering("Delete")
    ui.fedRemoveButton.click()
    wait_until(lambda: ui.fedCaseTable.rowCount == 0)
    panel.idle()
    answering("Cancel")
    ui.fedLeaveButton.click()
    assert panel.logic.facts.state != "left"
    answering("Leave")
    ui.fedLeaveButton.click()
    wait_until(lambda: panel.logic.facts.state == "left")
    panel.idle()
    assert ui.fedRunButton.toolTip == "The site has left the federation."
    assert not ui.fedRunButton.enabled
    assert "To come back, join with a new invitation" in ui.fedStateLabel.text
    assert ui.fedJoinButton.toolTip.startswith("Delete everything of the former federation below")
    answering("Cancel")
    ui.fedForgetButton.click()
    assert (tmp_path / "site" / "key").exists()
    answering("Delete")
    ui.fedForgetButton.click()
    wait_until(lambda: panel.logic.facts.state == "not-a-member")
    panel.idle()
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["journal"]
    assert not ui.fedTrainingCollapsibleButton.isVisible()
    assert ui.fedJournalCollapsibleButton.isVisible()  # what left this computer can still be read
    wait_until(lambda: "but this journal was deleted" in panel.journal()[0])
    panel.join(invitation)
    assert panel.logic.facts.state == "request-sent"
    assert ui.fedRunButton.enabled
    keep_pictures(pictures)


def test_rounds_as_table_and_plots_of_slicer(open_federation, tmp_path):
    panel = open_federation(tmp_path / "nowhere")
    rounds = [
        {"round_number": n, "rounds": 3, "loss": loss, "dice": dice}
        for n, loss, dice in ((1, 0.9, {}), (2, 0.5, {"liver": 0.25}), (3, 0.25, {"liver": 0.75, "spleen": 0.5}))
    ]
    training = panel.tab.training
    training._showRounds(rounds, {"liver": [255, 0, 51]})
    assert panel.rows(panel.ui.fedRoundTable) == [
        ["3 of 3", "0.250", "0.750", "0.500"],
        ["2 of 3", "0.500", "0.250", "–"],
        ["1 of 3", "0.900", "–", "–"],
    ]
    training.plots.show(rounds)
    table = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    assert [table.GetColumnName(n) for n in range(4)] == ["Round", "Loss", "Dice, liver", "Dice, spleen"]
    assert table.GetTable().GetValueByName(2, "Dice, liver").ToDouble() == 0.75
    assert math.isnan(table.GetTable().GetValueByName(0, "Dice, liver").ToDouble())
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    loss, liver, spleen = (tuple(chart.GetNthPlotSeriesNode(n).GetColor()) for n in range(3))
    assert loss == pytest.approx((0.5, 0.5, 0.5), abs=0.01)
    assert liver == pytest.approx((1.0, 0.0, 0.2))  # its curve has the color of the structure
    assert spleen not in (loss, liver)
    assert not chart.GetSaveWithScene()
    assert chart.GetYAxisRange() == pytest.approx((0.0, 1.3))
    assert chart.GetXAxisRange() == pytest.approx((1.0, 3.0))
    training.plots.update([*rounds, {"round_number": 4, "rounds": 4, "loss": 0.1, "dice": {"liver": 0.8}}])
    assert table.GetNumberOfRows() == 4
    assert not chart.GetXAxisRangeAuto()  # Slicer's own stays as it was when the curves were added
    assert chart.GetXAxisRange() == pytest.approx((1.0, 4.0))
    slicer.mrmlScene.Clear(False)
    training.plots.show(rounds)  # a scene that was closed takes the plots with it; they are made anew
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode").GetNumberOfPlotSeriesNodes() == 3
