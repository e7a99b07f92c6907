"""bootstrap.py, run as a user does, in folders of the test's own."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_fetching_through_proxies import (  # noqa: F401
    HOST,
    authority,
    forwarding_proxy,
    index_pages,
    listener,
    pip_alone,
    serving,
)
from test_runtime_installation import make_wheel, slicer_python  # noqa: F401

from FedSegCore.runtime.pieces import pinned
from FedSegCore.runtime.plan import SIZES, Plan, make_plan

ROOT = Path(__file__).resolve().parents[2]


def bootstrap(*arguments: str, runtime: Path | str, cwd: Path = ROOT, **environment: str):
    """Run it with a runtime of the test's own; return the finished process."""
    command = [sys.executable, str(ROOT / "bootstrap.py"), *arguments]
    settings = {**os.environ, "FEDSEG_RUNTIME": str(runtime), **environment}
    return subprocess.run(command, env=settings, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("below", ["", "bin/"])
def test_a_folder_of_the_users_is_refused_and_stays(tmp_path, below):
    data = tmp_path / "data"
    (data / below).mkdir(parents=True)
    (data / below / "scan.nrrd").write_text("an image")
    done = bootstrap("install", runtime="data", cwd=tmp_path)
    assert done.returncode == 4
    assert f"{data} is there already" in done.stderr
    assert (data / below / "scan.nrrd").read_text() == "an image"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("mine")
    assert bootstrap("install", runtime=tmp_path / "data").returncode == 4
    assert (tmp_path / "data").read_text() == "mine"


def test_the_runtime_of_slicers_module_is_refused_and_stays(tmp_path):
    (tmp_path / "core-1").mkdir()
    for name in ("current.json", "pyvenv.cfg"):
        (tmp_path / name).write_text("{}")
    done = bootstrap("demo", runtime=tmp_path)
    assert (done.returncode, "3D Slicer's module" in done.stderr) == (4, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core-1", "current.json", "pyvenv.cfg"]


CPU = Plan(build="cpu", variants=("cpu",), download_mb=1, disk_mb=1, free_mb=1)


@pytest.fixture
def script(slicer_python, monkeypatch):  # noqa: F811
    """Return bootstrap.py as a module whose runtime is a small environment, which has nothing but pip."""
    monkeypatch.setenv("FEDSEG_RUNTIME", str(slicer_python.parents[1]))
    spec = importlib.util.spec_from_file_location("bootstrap_in_a_test", ROOT / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pip = [str(module.runtime_python()), "-m", "pip"]
    yield module, pip
    subprocess.run([*pip, "uninstall", "--yes", "--quiet", "torch", "uv"], check=True)


def version_of(name: str) -> str:
    return pinned(ROOT, name).partition("==")[2]


def installed(script) -> set[str]:
    """Return name and version of what the environment has."""
    return {path.name.removesuffix(".dist-info") for path in script[0].RUNTIME.rglob("*.dist-info")}


def make_uv(folder: Path, address: str) -> Path:
    """Write a wheel whose script knows where PyTorch is, as uv does."""
    wheel = make_wheel(folder, "uv", "", version=version_of("uv"))
    with zipfile.ZipFile(wheel, "a") as archive:
        for name in ("uv", "uv.exe"):
            archive.writestr(f"uv-{version_of('uv')}.data/scripts/{name}", f"#!/bin/sh\necho {address}/whl/cpu\n")
    return wheel


def test_pytorch_comes_from_its_own_server_with_the_organisations_authority(
    script, pip_alone, authority, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    """Through the proxy and with the CA file that pip has been told of, which is all that the remedy names."""
    served = tmp_path / "served"
    served.mkdir()
    pages = index_pages("/whl/cpu", make_wheel(served, "torch", "", version=f"{version_of('torch')}+cpu"))
    pages |= index_pages("/simple", make_uv(served, f"https://{HOST}"))
    bootstrap_, pip = script
    with serving(authority, tmp_path, pages) as server, listener(forwarding_proxy(server, [])) as proxy:
        monkeypatch.setenv("PIP_INDEX_URL", f"https://{HOST}/simple")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        with pytest.raises(bootstrap_.BootstrapError, match="set PIP_CERT"):
            bootstrap_.install_torch(CPU, pip, tmp_path / "log")
        monkeypatch.setenv("PIP_CERT", str(tmp_path / "ca.pem"))
        bootstrap_.install_torch(CPU, pip, tmp_path / "log")
    assert f"torch-{version_of('torch')}+cpu" in installed(script)


def test_it_stops_where_only_the_large_build_can_be_had(script, pip_alone, tmp_path, monkeypatch):  # noqa: F811
    make_wheel(tmp_path, "torch", "", version=version_of("torch"))
    make_uv(tmp_path, "https://nowhere.invalid")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    bootstrap_, pip = script
    with pytest.raises(bootstrap_.BootstrapError, match="several times as large") as told:
        bootstrap_.install_torch(CPU, pip, tmp_path / "log")
    assert "PIP_CERT" in str(told.value)
    assert not any(line.startswith("torch-") for line in installed(script))
    make_wheel(tmp_path, "torch", "", version=f"{version_of('torch')}+cpu")
    bootstrap_.install_torch(CPU, pip, tmp_path / "log")
    assert f"torch-{version_of('torch')}+cpu" in installed(script)


def test_settings_that_send_packages_elsewhere_do_not_count(script, pip_alone, tmp_path, monkeypatch):  # noqa: F811
    make_wheel(tmp_path, "uv", "", version=version_of("uv"))
    elsewhere = tmp_path / "elsewhere"
    for name, value in {"PIP_USER": "1", "PIP_TARGET": str(elsewhere), "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    bootstrap_, pip = script
    bootstrap_.must_run("Installing", [*pip, "install", "--find-links", str(tmp_path), "uv"], tmp_path / "log")
    assert f"uv-{version_of('uv')}" in installed(script)
    assert not elsewhere.exists()


def test_the_room_asked_for_is_that_of_the_build(script):
    plan = make_plan(ROOT, "auto", None)
    assert script[0].checked_plan("run").disk_mb == plan.disk_mb > sum(SIZES[plan.build])
    assert script[0].checked_plan("test").disk_mb > plan.disk_mb + 1000
