"""What the module shows is worded for people at a screen: no word of the core's sends them to a command line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_A_SHELL = re.compile(r"\bfedseg [a-z]|--help|\bwith --[a-z]")

COMMANDS_ONLY = ("cli", "demo", "experiments", "reporting", "federation/coordinator")
"""Folders of which nothing is shown in the module."""

WRITTEN_TO_FILES = ("models/export.py", "models/monai_bundle.py")
"""They write instructions for whoever opens an exported model without the module."""

NOT_ASKED = ("federation/site/approval.py", "federation/initial_model.py")
"""Their errors come up in commands only."""


def shown_sources() -> list[Path]:
    core = ROOT / "FedSegCore"
    names = {path.relative_to(core).as_posix(): path for path in sorted(core.rglob("*.py"))}
    left_out = (*(f"{folder}/" for folder in COMMANDS_ONLY), *WRITTEN_TO_FILES, *NOT_ASKED)
    module = sorted((ROOT / "FedSegSlicer").rglob("*.py"))
    return [*module, *(path for name, path in names.items() if not name.startswith(left_out))]


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a source that is no docstring."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def test_the_scan_finds_what_is_meant_for_a_shell():
    source = (
        '"""See fedseg site run."""\nError("x", f"{a}: see --help.", "Call \'fedseg site leave\'.")\nother = "help"'
    )
    found = [text for text in texts(ast.parse(source)) if OF_A_SHELL.search(text)]
    assert sorted(found) == [": see --help.", "Call 'fedseg site leave'."]


def test_no_word_shown_in_the_module_is_meant_for_a_shell():
    sources = shown_sources()
    assert len(sources) > 150
    found = {
        path.relative_to(ROOT).as_posix(): text
        for path in sources
        for text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if OF_A_SHELL.search(text)
    }
    assert found == {}
    user_interface = ROOT / "FedSegSlicer" / "Resources" / "UI" / "FedSegSlicer.ui"
    assert OF_A_SHELL.search(user_interface.read_text(encoding="utf-8")) is None
