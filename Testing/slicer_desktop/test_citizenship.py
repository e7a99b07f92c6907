"""What Slicer asks of every module, looked up in the source and in the real user interface."""

import ast
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

MODULE = Path(__file__).resolve().parents[2] / "FedSegSlicer"
SOURCES = sorted(MODULE.rglob("*.py"))
UI = MODULE / "Resources" / "UI" / "FedSegSlicer.ui"

SHOWN_BY = {"emit",
    "addItem", "addRow", "confirm", "errorDisplay", "setPlaceholderText", "setText", "setTitle",
    "setToolTip", "setWindowTitle", "setHeaderLabels", "setHorizontalHeaderLabels", "showStatusMessage",
    "tryWithErrorDisplay", "delayDisplay",
}  # fmt: skip
"""Calls whose first text a user reads."""

SHOWN_AS = {"placeholderText", "text", "title", "toolTip", "windowTitle"}
"""Attributes that a user reads."""

WORDS = re.compile(r"[A-Za-z]{2,}")


def untranslated(node: ast.expr) -> list[str]:
    """Return the texts of letters in an expression that are not inside ``_()`` or ``translate()``."""
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ("_", "translate"):
            return []
        if name in ("format", "join", "replace"):  # methods of texts
            parts = [node.func.value, *node.args] if isinstance(node.func, ast.Attribute) else node.args
            return [text for part in parts for text in untranslated(part)]
        return []
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) and WORDS.search(re.sub(r"<[^>]+>", "", node.value)) else []
    if isinstance(node, ast.JoinedStr):
        return [text for part in node.values if isinstance(part, ast.Constant) for text in untranslated(part)]
    if isinstance(node, ast.BinOp):
        return untranslated(node.left) + untranslated(node.right)
    if isinstance(node, ast.IfExp):
        return untranslated(node.body) + untranslated(node.orelse)
    if isinstance(node, ast.BoolOp):
        return [text for part in node.values for text in untranslated(part)]
    return []


def shown(tree: ast.AST) -> list[tuple[int, ast.expr]]:
    """Return (line, expression) of whatever a user reads: shown texts, and cause and remedy of errors."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "UserError":
                found += [(node.lineno, part) for part in node.args[1:3]]
            elif name in SHOWN_BY and node.args:
                found.append((node.lineno, node.args[0]))
        if isinstance(node, ast.Assign):
            names = {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
            found += [(node.lineno, node.value)] if names & SHOWN_AS else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_whatever_a_user_reads_can_be_translated(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name.endswith("Test")]
    in_tests = {line for node in tests for line in range(node.lineno, node.end_lineno + 1)}
    found = [(line, text) for line, node in shown(tree) if line not in in_tests for text in untranslated(node)]
    assert found == []


def test_the_scan_finds_what_is_not_translated():
    source = (
        'label.text = "Ready" if ok else _("Not ready")\nbutton.setToolTip(f"Press {x}")\nUserError("a.b", "Bad", y)'
    )
    found = [text for _, node in shown(ast.parse(source)) for text in untranslated(node)]
    assert sorted(found) == ["Bad", "Press ", "Ready"]
    assert untranslated(ast.parse('f"{a}<br>{b}"', mode="eval").body) == []


CONTROLS = (
    "QPushButton", "QToolButton", "QCheckBox", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QSlider", "QLineEdit",
    "QDateEdit", "QTimeEdit", "QTableWidget", "QListWidget", "ctkPathLineEdit", "ctkSliderWidget", "ctkRangeWidget",
    "qMRMLNodeComboBox",
)  # fmt: skip


def controls():
    tree = ET.parse(UI).getroot()
    return [widget for widget in tree.iter("widget") if widget.get("class") in CONTROLS]


OPERATED = (
    r"\.(click|toggle|setChecked|setCurrent\w+|setDate|setText|setTime|setValues?|_qt_object)\b"
    r"|\.(checked|currentIndex|currentPath|currentRow|currentText|date|text|time|value) = "
)
"""What a test does with a control, after its name."""


def test_every_control_is_operated_by_a_test():
    """A table only shows; everything else that a user can press, choose or fill in is pressed, chosen or filled in."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    names = [widget.get("name") for widget in controls() if widget.get("class") != "QTableWidget"]
    assert [name for name in names if not re.search(rf"\b{name}(?:{OPERATED})", tests)] == []


@pytest.mark.slicer
def test_every_control_says_what_it_does_or_why_it_cannot(open_panel):
    import qt

    panel = open_panel("")
    qt.QApplication.processEvents()
    names = [widget.get("name") for widget in controls()]
    assert len(names) > 60
    assert [name for name in names if not getattr(panel.ui, name).toolTip] == []


def test_every_label_of_a_form_leads_to_its_control_by_keyboard():
    """A caption with a letter to press has a buddy, and no letter is used twice on one page."""
    tree = ET.parse(UI).getroot()
    pages = [
        widget for widget in tree.iter("widget") if widget.get("name") in ("segmentTab", "seeTab", "federationTab")
    ]
    assert len(pages) == 3
    for page in pages:
        letters = []
        for widget in page.iter("widget"):
            text = next((p.findtext("string") for p in widget.findall("property") if p.get("name") == "text"), "") or ""
            letter = re.search(r"&(\w)", text)
            if letter is None:
                continue
            letters.append(letter[1].lower())
            if widget.get("class") == "QLabel":
                assert any(p.get("name") == "buddy" for p in widget.findall("property")), widget.get("name")
        assert len(letters) == len(set(letters)), (page.get("name"), sorted(letters))


@pytest.mark.slicer
@pytest.mark.parametrize("page", ["segmentTab", "seeTab", "federationTab"])
def test_the_tab_key_goes_down_the_page(open_panel, page):
    """The order of the Tab key is the order in which the controls stand on the page."""
    from PySide6 import QtCore, QtWidgets

    panel = open_panel("")
    tab = getattr(panel.ui, page)._qt_object
    panel.ui.tabWidget.setCurrentWidget(getattr(panel.ui, page))
    for section in tab.findChildren(QtWidgets.QGroupBox):
        section.setVisible(True)
    top = panel.widget.parent._qt_object
    top.resize(440, 3000)
    QtWidgets.QApplication.processEvents()
    places, widget = [], tab.nextInFocusChain()
    while widget is not tab:
        stops = widget.focusPolicy() & QtCore.Qt.FocusPolicy.TabFocus
        if stops and widget.isVisible() and tab.isAncestorOf(widget) and not isinstance(widget, QtWidgets.QGroupBox):
            corner = widget.mapTo(tab, QtCore.QPoint(0, widget.height() // 2))
            places.append((widget.objectName(), corner.y(), corner.x()))
        widget = widget.nextInFocusChain()
    assert len(places) > 5
    for (before, y, x), (after, lower, right) in itertools.pairwise(places):
        assert lower > y - 12, f"{after} stands above {before}, which comes before it"
        assert lower > y + 12 or right > x, f"{after} stands left of {before}, which comes before it"


def test_no_color_and_no_size_is_fixed():
    """Colors come from the theme, dark or light, and sizes from the text in them."""
    tree = ET.parse(UI).getroot()
    properties = {p.get("name") for widget in tree.iter("widget") for p in widget.findall("property")}
    assert not properties & {"styleSheet", "palette", "fixedSize"}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert "setStyleSheet" not in text, path.name
        assert not re.search(r'<font|style="[^"]*color:\s*[#a-qs-z]|setFixedWidth|setFixedSize', text), path.name


@pytest.mark.slicer
def test_larger_letters_clip_nothing(open_panel, patients):
    """As on a screen of high resolution, or with the system's larger text."""
    from panel_helpers import check_nothing_is_clipped
    from PySide6 import QtWidgets
    from scene_helpers import load_volume

    application = QtWidgets.QApplication.instance()
    font = application.font()
    larger = application.font()
    larger.setPointSizeF(1.5 * font.pointSizeF())
    try:
        application.setFont(larger)
        panel = open_panel()
        panel.widget.parent._qt_object.resize(600, 1400)
        panel.ui.inputSelector.setCurrentNode(load_volume(patients["CT"], "CT abdomen"))
        panel.ready()
        check_nothing_is_clipped(panel)
    finally:
        application.setFont(font)


def test_what_is_no_rich_text_says_so():
    """Else names of a stranger's model, or of a scene, that look like HTML would be shown as such."""
    labels = [widget for widget in ET.parse(UI).iter("widget") if widget.get("class") == "QLabel"]
    formats = {
        label.get("name"): label.findtext("property[@name='textFormat']/enum")
        for label in labels
        if not label.get("name").endswith("Caption") and label.get("name") != "seeHistogramLabel"  # a picture
    }
    assert {name for name, kind in formats.items() if kind not in ("Qt::PlainText", "Qt::RichText")} == set()
    foreign = ("releaseLabel", "resultLabel", "progressLabel", "seeKeptLabel", "seeAgainLabel")
    assert {formats[name] for name in foreign} == {"Qt::PlainText"}
    rich = re.compile(r"ui\.(\w+)\.text = [^\n]*\n?[^\n]*(?:<b>|<br>|html\.escape)")
    for source in SOURCES:  # what is made for people as HTML goes to labels that show it
        for name in rich.findall(source.read_text("utf-8")):
            assert formats[name] == "Qt::RichText", name
