"""The runtime, really installed from a folder of wheels into a temporary folder by a Python that plays Slicer's."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from FedSegCore import __version__
from FedSegCore.runtime.in_use import is_held
from FedSegCore.runtime.layout import core_fingerprint, new_folder, read_current, remove_unused
from FedSegCore.runtime.pieces import pinned
from FedSegCore.runtime.plan import make_plan
from FedSegCore.runtime.problems import code_of

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = ROOT / "FedSegCore" / "runtime" / "installer.py"


def make_wheel(
    folder: Path, name: str, source: str, requires: tuple[str, ...] = (), extra_files: int = 0, version: str = "1.0"
) -> Path:
    """Write a small pure-Python wheel by hand."""
    files = {f"{name}/__init__.py": source}
    files |= {f"{name}/part{number}.py": f"value = {number}\n" * 40 for number in range(extra_files)}
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {other}\n" for other in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Return what the extension ships; no constraints that would forbid the tests' own packages."""
    folder = tmp_path_factory.mktemp("extension")
    shutil.copytree(ROOT / "FedSegCore", folder / "FedSegCore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "tinyone", "import tinytwo\nvalue = tinytwo.value + 1\n", ("tinytwo",))
    make_wheel(folder, "tinytwo", "value = 41\n")
    return folder


@pytest.fixture(scope="module")
def slicer_python(tmp_path_factory) -> Path:
    """Return a Python of its own with pip, the interpreter that plays Slicer."""
    folder = tmp_path_factory.mktemp("slicer-python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class Child:
    """The installing process, as the module runs it."""

    def __init__(self, python: Path, **order):
        self.events: list[dict] = []
        self.process = subprocess.Popen(
            [python, "-B", INSTALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.process.stdin.write(json.dumps(order, default=str).encode() + b"\n")
        self.process.stdin.flush()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def end(self) -> dict:
        """Wait for its end; return the last event."""
        self.process.wait(timeout=120)
        self.reader.join()
        assert self.process.stderr.read() == b""
        return self.events[-1]

    def wait_for(self, text: str):
        end = time.monotonic() + 60
        while not any(text in str(event) for event in list(self.events)):
            assert time.monotonic() < end, self.events
            time.sleep(0.005)


def install(python, source, wheels, folder, **more):
    tiny = {"requirements": ["tinyone"], "imports": ["tinyone", "FedSegCore"]}
    return Child(python, **{"action": "install", "source": source, "wheels": wheels, "folder": folder, **tiny, **more})


def test_installed_offline_beside_slicers_python_which_stays_as_it_was(slicer_python, source, wheels, tmp_path):
    folder = tmp_path / "runtime"
    before, listed = fingerprints(slicer_python.parents[1]), pip_list(slicer_python)
    child = install(slicer_python, source, wheels, folder)
    assert child.end()["event"] == "ready"
    current = read_current(folder)
    assert (current.version, current.core_sha256) == (__version__, core_fingerprint(ROOT))
    assert sorted(p.name for p in folder.iterdir()) == [
        "core-1", "current.json", "install.lock", "install.log", "packages-1"
    ]  # fmt: skip
    fractions = [event["fraction"] for event in child.events if event["event"] == "stage"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert "Successfully installed tinyone-1.0 tinytwo-1.0" in (folder / "install.log").read_text()
    start = folder / "core-1" / "FedSegCore" / "runtime" / "start.py"
    code = "import sys, os, tinyone, FedSegCore; print(tinyone.value, FedSegCore.__file__, *sys.argv[1:])"
    command = [slicer_python, "-B", start, folder / "packages-1", "-c", code, "a", "b"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out == ["42", str(folder / "core-1" / "FedSegCore" / "__init__.py"), "a", "b"]
    assert pip_list(slicer_python) == listed
    assert fingerprints(slicer_python.parents[1]) == before


def pip_list(python: Path) -> str:
    command = [python, "-B", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_package_of_slicers_own_is_not_mixed_in(slicer_python, source, wheels, tmp_path):
    """What only Slicer's Python has (pip, here) does not count as installed."""
    child = install(slicer_python, source, wheels, tmp_path, imports=["tinyone", "pip"])
    assert child.end() == {"event": "problem", "code": "runtime.check-failed",
                           "detail": "ModuleNotFoundError: No module named 'pip'"}  # fmt: skip
    assert read_current(tmp_path) is None


def test_cancelled_and_killed_installations_leave_nothing(slicer_python, source, wheels, tmp_path):
    large = tmp_path / "large"
    shutil.copytree(wheels, large)
    make_wheel(large, "tinymany", "", extra_files=6000)
    folder = tmp_path / "runtime"
    assert install(slicer_python, source, wheels, folder).end()["event"] == "ready"
    used = fingerprints(folder / "packages-1")
    for cancel in (
        lambda child: (child.process.stdin.write(b"cancel\n"), child.process.stdin.flush()),
        lambda child: child.process.stdin.close(),  # Slicer is gone
    ):
        child = install(slicer_python, source, large, folder, requirements=["tinymany"], imports=["tinymany"])
        child.wait_for("Installing collected packages")
        started = time.monotonic()
        cancel(child)
        assert child.end() == {"event": "cancelled"}
        assert time.monotonic() - started < 5
        assert sorted(p.name for p in folder.glob("*-[0-9]*")) == ["core-1", "packages-1"]
    child = install(slicer_python, source, large, folder, requirements=["tinymany"], imports=["tinymany"])
    child.wait_for("Installing collected packages")
    child.process.kill()
    child.process.wait()
    last = install(slicer_python, source, wheels, folder, fresh=True)  # the lock is free, remains are removed
    assert last.end()["event"] == "ready"
    assert len(list(folder.glob("*-[0-9]*"))) == 2
    assert fingerprints(folder / read_current(folder).packages).keys() == used.keys()


def test_two_installations_into_one_folder(slicer_python, source, wheels, tmp_path):
    from FedSegCore.runtime.layout import locked

    with locked(tmp_path):
        assert install(slicer_python, source, wheels, tmp_path).end()["code"] == "runtime.busy"


def test_damaged_missing_and_absent_wheels_are_named_and_change_nothing(slicer_python, source, wheels, tmp_path):
    folder, bad, empty = tmp_path / "runtime", tmp_path / "bad", tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(wheels, bad)
    assert install(slicer_python, source, wheels, folder).end()["event"] == "ready"
    before = (folder / "current.json").read_bytes()
    (bad / "tinytwo-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 no longer a wheel")
    for from_, more, code in (
        (bad, {}, "runtime.broken-package"),
        (wheels, {"requirements": ["tinythree"]}, "runtime.no-wheel"),
        (empty, {}, "runtime.no-wheels"),
    ):
        child = install(slicer_python, source, from_, folder, fresh=True, **more)
        assert child.end()["code"] == code
    assert (folder / "current.json").read_bytes() == before
    assert read_current(folder) is not None


def test_another_core_is_exchanged_without_the_packages(slicer_python, source, wheels, tmp_path):
    changed = tmp_path / "newer"
    shutil.copytree(source, changed)
    folder = tmp_path / "runtime"
    assert install(slicer_python, source, wheels, folder).end()["event"] == "ready"
    init = changed / "FedSegCore" / "__init__.py"
    init.write_text(init.read_text().replace(__version__, "9.9.9"))
    look = {"action": "look", "requirements": ["tinyone"]}
    told = install(slicer_python, changed, wheels, folder, **look).end()
    assert (told["condition"], told["plan"]["download_mb"]) == ("outdated", 0)
    child = install(slicer_python, changed, wheels, folder)
    assert child.end()["present"]["version"] == "9.9.9"
    assert not any("Processing" in str(event) for event in child.events)
    assert sorted(p.name for p in folder.glob("*-[0-9]*")) == ["core-2", "packages-1"]
    assert install(slicer_python, changed, wheels, folder, **look).end()["condition"] == "ready"


def test_damage_is_found_repaired_and_removed(slicer_python, source, wheels, tmp_path):
    folder = tmp_path / "runtime"
    install(slicer_python, source, wheels, folder).end()
    (folder / "packages-1" / "tinytwo" / "__init__.py").unlink()
    check = {"action": "check"}
    assert install(slicer_python, source, wheels, folder, **check).end()["code"] == "runtime.check-failed"
    assert install(slicer_python, source, wheels, folder, fresh=True).end()["event"] == "ready"
    assert install(slicer_python, source, wheels, folder, **check).end()["event"] == "ready"
    shutil.rmtree(folder / read_current(folder).packages)
    told = install(slicer_python, source, wheels, folder, action="look").end()
    assert told["condition"] == "broken"
    (folder / "mine.txt").write_text("not FedSegSlicer's")
    for name in ("packages-of-wheels", "core-images", "temporary-2024", "core-7"):
        (folder / name).mkdir()
        (folder / name / "scan.nrrd").write_text("an image")
    removal = install(slicer_python, source, wheels, folder, action="remove")
    assert removal.end() == {"event": "removed"}
    told = [event["fraction"] for event in removal.events if event.get("stage") == "deleting"]
    assert len(told) > 3
    assert told == sorted(told)
    mine = ["core-7/scan.nrrd", "core-images/scan.nrrd", "mine.txt", "packages-of-wheels/scan.nrrd",
            "temporary-2024/scan.nrrd"]  # fmt: skip
    assert sorted(fingerprints(folder)) == mine


def test_a_small_disk_is_told_before_anything_is_fetched(slicer_python, source, tmp_path):
    """Nobody has a petabyte free: a (sparse) folder of wheels of that size cannot fit."""
    huge = tmp_path / "wheels"
    huge.mkdir()
    with (huge / "huge-1.0-py3-none-any.whl").open("wb") as file:
        file.truncate(2**43)  # 9 TB
    plan = make_plan(tmp_path / "runtime", "cpu", huge)
    assert not plan.fits
    assert plan.disk_mb == int(int(2**43 / 1e6 * 3) * 1.1)
    child = install(slicer_python, source, huge, tmp_path / "runtime")
    assert child.end()["code"] == "runtime.disk"
    assert not any(event["event"] == "stage" for event in child.events)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the standard build has no CUDA in it")
def test_a_build_much_larger_than_was_told_is_not_taken(slicer_python, source, tmp_path, monkeypatch):
    """Where PyTorch's own server is out of reach, the processor's build is not to be had; the one that is has CUDA."""
    server = tmp_path / "server"
    server.mkdir()
    for name in ("uv", "torch"):
        make_wheel(server, name, "", version=pinned(source, name).partition("==")[2])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(server))
    child = install(slicer_python, source, "", tmp_path / "runtime", build="cpu", requirements=["torch"])
    assert child.end()["code"] == "runtime.standard-build"
    assert read_current(tmp_path / "runtime") is None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("OSError: [Errno 28] No space left on device", "runtime.disk-full"),
        ("Tunnel connection failed: 407 Proxy Authentication Required", "runtime.proxy"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed'))", "runtime.tls"),
        ("[Errno -2] Name or service not known\nERROR: No matching distribution found", "runtime.network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "runtime.no-wheel"),
        ("ERROR: Could not install due to an OSError: [Errno 13] Permission denied: 'x'", "runtime.permission"),
        ("ERROR: ResolutionImpossible: for help visit", "runtime.conflict"),
        ("Segmentation fault", "runtime.install-failed"),
    ],
)  # fmt: skip
def test_what_pip_says_has_a_code(said, code):
    assert code_of(said.splitlines()) == code


@pytest.mark.skipif(os.name == "nt", reason="the launcher is played by a shell script")
def test_through_a_launcher_like_slicers(slicer_python, source, wheels, tmp_path):
    """Slicer's launcher sets PYTHONHOME and PYTHONPATH for its Python; its packages must not come first."""
    decoy = tmp_path / "lib" / "site-packages"
    (decoy / "tinytwo").mkdir(parents=True)
    (decoy / "tinytwo" / "__init__.py").write_text("value = -1\n")
    pip_only = slicer_python.parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(
        f'#!/bin/sh\nexport PYTHONHOME="{sys.base_prefix}"\nexport PYTHONPATH="{decoy}:{pip_only}"\n'
        f'exec "{slicer_python}" "$@"\n'
    )
    launcher.chmod(0o755)
    folder = tmp_path / "runtime"
    assert install(launcher, source, wheels, folder).end()["event"] == "ready"
    start, packages = folder / "core-1" / "FedSegCore" / "runtime" / "start.py", folder / "packages-1"
    show = "import sys, tinyone; print(tinyone.value, sys.argv[1:])"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', {show!r}, 'x'], check=True)"
    for code in (show, grandchild):
        out = subprocess.run(
            [launcher, "-B", start, packages, "-c", code, "x"], capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == "42 ['x']"


RUNS = """
import sys
print("runs", flush=True)
sys.stdin.read()
import tinytwo, FedSegCore.runtime.problems
print(tinytwo.value, flush=True)
"""


def running_in(python, folder):
    """Start something in an installed runtime and wait until it runs; it imports more when its input ends."""
    current = read_current(folder)
    start = folder / current.core / "FedSegCore" / "runtime" / "start.py"
    process = subprocess.Popen([python, "-B", start, folder / current.packages, "-c", RUNS],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "runs\n"
    return process


def test_what_runs_keeps_its_runtime_through_update_and_repair(slicer_python, source, wheels, tmp_path):
    """A process of before goes on importing; what it used goes with the next installation after its end."""
    changed, folder = tmp_path / "newer", tmp_path / "runtime"
    shutil.copytree(source, changed)
    init = changed / "FedSegCore" / "__init__.py"
    init.write_text(init.read_text().replace(__version__, "9.9.9"))
    assert install(slicer_python, source, wheels, folder).end()["event"] == "ready"
    process = running_in(slicer_python, folder)
    assert install(slicer_python, changed, wheels, folder, fresh=True).end()["event"] == "ready"
    assert {p.name for p in folder.glob("*-[0-9]*")} == {"core-1", "core-2", "packages-1", "packages-2"}
    assert process.communicate("", timeout=60)[0] == "41\n"
    assert install(slicer_python, changed, wheels, folder).end()["event"] == "ready"
    assert {p.name for p in folder.glob("*-[0-9]*")} == {"core-1", "packages-2"}
    assert read_current(folder).version == "9.9.9"


def test_a_runtime_in_use_is_not_removed_and_a_killed_process_uses_it_no_longer(
    slicer_python, source, wheels, tmp_path
):
    folder = tmp_path / "runtime"
    assert install(slicer_python, source, wheels, folder).end()["event"] == "ready"
    before = fingerprints(folder).keys()
    process = running_in(slicer_python, folder)
    assert install(slicer_python, source, wheels, folder, action="remove").end()["code"] == "runtime.in-use"
    assert fingerprints(folder).keys() == before
    process.kill()
    process.communicate()
    assert install(slicer_python, source, wheels, folder, action="remove").end() == {"event": "removed"}
    assert not folder.exists()


def test_a_site_in_the_background_holds_what_its_path_names(source, tmp_path):
    """It is started as ``python -m`` with PYTHONPATH, as are all commands that outlive the worker."""
    core, packages = new_folder(tmp_path, "core"), new_folder(tmp_path, "packages")
    shutil.copytree(source / "FedSegCore", core / "FedSegCore")
    command = [sys.executable, "-P", "-m", "FedSegCore.cli.main", "worker"]  # one that waits
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(core), str(packages)])}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not (is_held(core) and is_held(packages)):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        assert not remove_unused(tmp_path)
        assert (core / "FedSegCore" / "__init__.py").is_file()
    finally:
        process.communicate(timeout=60)
    assert remove_unused(tmp_path)
    assert list(tmp_path.iterdir()) == []
