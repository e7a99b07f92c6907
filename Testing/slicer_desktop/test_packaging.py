"""The extension's package holds every file of the module, and the module keeps Slicer's conventions."""

import ast
import re
from pathlib import Path

import pytest

import FedSegCore
from FedSegCore.worker.methods import PROTOCOL

MODULE = Path(__file__).resolve().parents[2] / "FedSegSlicer"
PYTHON_FILES = sorted(path for path in MODULE.rglob("*.py"))
FROM_SLICER = {"ctk", "qt", "slicer", "vtk"}
WITH_SLICERS_PYTHON = {"numpy"}  # bundled with every Slicer, but imported late all the same


def listed(variable: str) -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text()
    block = re.search(rf"set\({variable}(.*?)\)", text, re.DOTALL)[1]
    return set(block.replace("${MODULE_NAME}", "FedSegSlicer").split())


def files(*patterns: str) -> set[str]:
    return {path.relative_to(MODULE).as_posix() for pattern in patterns for path in MODULE.glob(pattern)}


def test_every_python_file_is_listed():
    assert listed("MODULE_PYTHON_SCRIPTS") == files("*.py", "FedSegSlicerLib/**/*.py")


def test_every_resource_is_listed():
    assert listed("MODULE_PYTHON_RESOURCES") == {name for name in files("Resources/**/*") if (MODULE / name).is_file()}


def test_the_extension_has_the_name_of_its_project():
    text = (MODULE.parent / "CMakeLists.txt").read_text()
    assert "project(FedSegSlicer)" in text
    assert "add_subdirectory(FedSegSlicer)" in text


def test_module_and_worker_are_of_one_version():
    source = ast.parse((MODULE / "FedSegSlicerLib" / "__init__.py").read_text())
    values = {node.targets[0].id: node.value.value for node in source.body if isinstance(node, ast.Assign)}
    assert values == {"VERSION": FedSegCore.__version__, "PROTOCOL": PROTOCOL}


def imports_of(nodes) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.name)
def test_nothing_foreign_is_imported_and_nothing_runs_at_import(path):
    import sys

    tree = ast.parse(path.read_text())
    own = {"FedSegSlicerLib"}
    at_top = imports_of(tree.body)
    assert at_top <= FROM_SLICER | own | set(sys.stdlib_module_names)
    assert imports_of(ast.walk(tree)) <= FROM_SLICER | WITH_SLICERS_PYTHON | own | set(sys.stdlib_module_names)
    allowed = ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign | ast.If
    for node in tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, allowed) or is_text, f"line {node.lineno} runs at import"


def test_texts_with_values_name_their_places():
    """A translator needs whole sentences with named places: no f-strings inside _()."""
    for path in PYTHON_FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                assert not re.search(r"\{\d*\}", node.args[0].value), f"{path.name}:{node.lineno}"
