"""What holds for the repository as a whole: arrows, pins, sizes, and that the README tells the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tools.error_page import PAGE, page

from FedSegCore import __version__
from FedSegCore.cli.main import build_app

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(path for folder in ("FedSegCore", "FedSegSlicer", "Testing") for path in (ROOT / folder).rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def test_dependencies_point_down_only():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_files_stay_small():
    long = {path.name: lines for path in SOURCES if (lines := path.read_text(encoding="utf-8").count("\n")) > 410}
    assert long == {}


def test_no_work_at_import_but_definitions():
    """Calls at module level in the core are limited to making constants: none starts, reads or prints anything."""
    suspicious = {"print", "open", "run", "Popen", "start", "connect", "mkdir", "write_text", "read_text", "getLogger"}
    found = []
    for path in SOURCES:
        if "Testing" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                name = node.value.func.attr if isinstance(node.value.func, ast.Attribute) else ""
                if name in suspicious:
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_the_commands_of_the_readme_exist():
    known = {command.name or command.callback.__name__ for command in build_app().registered_commands}
    known |= {group.name for group in build_app().registered_groups}
    told = set(re.findall(r"`fedseg ([a-z]+)", README))
    assert told <= known
    assert {"demo", "segment", "inspect", "gin", "experiment", "worker", "coordinator", "site"} <= told


def test_the_readmes_system_packages_are_those_that_ci_installs():
    told = re.search(r"`sudo apt-get install ([^`]+)`", README)
    assert told
    in_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    in_bootstrap = (ROOT / "bootstrap.py").read_text(encoding="utf-8")
    for package in told.group(1).split():
        assert package in in_ci, package
        assert package in in_bootstrap, package


def test_version_is_one(fedseg):
    done = fedseg("--version")
    assert (done.code, done.out) == (0, f"fedseg {__version__}\n")


def test_wrong_usage_exits_2(fedseg):
    assert fedseg("segment").code == 2
    assert fedseg("nonsense").code == 2


def test_bootstrap_can_be_read_by_an_old_python():
    """It must get as far as saying that Python is too old."""
    core = ("__init__.py", "runtime/__init__.py", "runtime/pieces.py", "runtime/plan.py")
    for name in ("bootstrap.py", *(f"FedSegCore/{part}" for part in core)):
        ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_error_page_is_what_the_source_says():
    """Written by ``python Testing/tools/error_page.py``; the worker's errors point into it."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert page().count("\n### ") > 100
