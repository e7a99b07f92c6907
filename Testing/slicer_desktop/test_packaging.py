"""The extension's package holds every file of the module, and the module keeps Slicer's conventions."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import FedSegCore
from FedSegCore.runtime.layout import core_files, core_fingerprint
from FedSegCore.worker.methods import PROTOCOL

MODULE = Path(__file__).resolve().parents[2] / "FedSegSlicer"
PYTHON_FILES = sorted(path for path in MODULE.rglob("*.py"))
FROM_SLICER = {"ctk", "qt", "slicer", "vtk", "SampleData"}
WITH_SLICERS_PYTHON = {"numpy"}  # bundled with every Slicer, but imported late all the same


def listed(variable: str) -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    block = re.search(rf"set\({variable}(.*?)\)", text, re.DOTALL)[1]
    return set(block.replace("${MODULE_NAME}", "FedSegSlicer").split())


def files(*patterns: str) -> set[str]:
    return {path.relative_to(MODULE).as_posix() for pattern in patterns for path in MODULE.glob(pattern)}


def test_every_python_file_is_listed():
    assert listed("MODULE_PYTHON_SCRIPTS") == files("*.py", "FedSegSlicerLib/**/*.py")


def test_every_resource_is_listed():
    assert listed("MODULE_PYTHON_RESOURCES") == {name for name in files("Resources/**/*") if (MODULE / name).is_file()}


STUBS = """
cmake_minimum_required(VERSION 3.16)
project(Stub NONE)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer/qt-scripted-modules)
macro(slicerMacroBuildScriptedModule)
endmacro()
add_subdirectory({module} module)
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_the_package_carries_what_the_runtime_is_made_of(tmp_path):
    """CMake itself puts the whole FedSegCore, as the runtime takes it, where the installer looks for it."""
    (tmp_path / "CMakeLists.txt").write_text(STUBS.format(module=MODULE.as_posix()))
    subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build"], check=True, capture_output=True)
    shipped = tmp_path / "build" / "lib" / "Slicer" / "qt-scripted-modules" / "Resources" / "Runtime"
    root = MODULE.parent
    for name in ("pyproject.toml", "constraints.txt"):
        assert (shipped / name).read_bytes() == (root / name).read_bytes()
    names = [[path.relative_to(folder).as_posix() for path in core_files(folder)] for folder in (root, shipped)]
    assert names[0] == names[1]
    assert core_fingerprint(shipped) == core_fingerprint(root)


def test_the_extension_has_the_name_of_its_project():
    text = (MODULE.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "project(FedSegSlicer)" in text
    assert "add_subdirectory(FedSegSlicer)" in text


def test_module_and_worker_are_of_one_version():
    source = ast.parse((MODULE / "FedSegSlicerLib" / "__init__.py").read_text(encoding="utf-8"))
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

    tree = ast.parse(path.read_text(encoding="utf-8"))
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
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
                assert not re.search(r"\{\d*\}", node.args[0].value), f"{path.name}:{node.lineno}"


def test_the_extension_index_finds_what_the_extension_shows():
    """Home page, icon and screenshots are of this repository, and icon and screenshots are files of it."""
    text = (MODULE.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    values = dict(re.findall(r'set\((EXTENSION_[A-Z]+) "([^"]*)"\)', text))
    home = re.fullmatch(r"https://github\.com/([^/]+/Slicer[^/]+)", values["EXTENSION_HOMEPAGE"])
    assert home is not None  # the index asks for a repository whose name begins with Slicer
    start = f"https://raw.githubusercontent.com/{home[1]}/main/"
    shown = [values["EXTENSION_ICONURL"], *values["EXTENSION_SCREENSHOTURLS"].split()]
    assert len(shown) > 3
    for url in shown:
        assert url.startswith(start)
        assert (MODULE.parent / url.removeprefix(start)).is_file(), url


def test_every_picture_of_the_modules_page_is_there_and_small():
    """Made anew by Testing/tools/screenshots.py."""
    from tools.screenshots import MOST_BYTES, PICTURES, wanted

    names = wanted()
    assert len(names) > 25
    assert sorted(names) == sorted(path.name for path in PICTURES.glob("*"))
    assert max(path.stat().st_size for path in PICTURES.glob("*")) <= MOST_BYTES
