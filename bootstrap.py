#!/usr/bin/env python3
"""Make FedSegSlicer's private runtime and run something in it; needs only Python 3.11 or later.

    python3 bootstrap.py demo [options]     train a federation of generated patients and show the report
    python3 bootstrap.py test [options]     run the test suite (options go to pytest)
    python3 bootstrap.py fedseg ...         any other fedseg command
    python3 bootstrap.py install            only make the runtime

The runtime is a virtual environment in the folder ``.runtime`` beside this file (another with FEDSEG_RUNTIME).
Nothing is installed anywhere else (pip keeps what it fetched in its usual cache, unless PIP_NO_CACHE_DIR is 1); delete
the folder to remove it. Standard library only: this file has to run
before anything is installed.
"""

from __future__ import annotations  # so that an old Python reaches the message that it is too old

import argparse
import ctypes.util
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from FedSegCore.runtime.pieces import pinned, pip_environment, without_foreign
from FedSegCore.runtime.plan import Plan, index_of, make_plan

ROOT = Path(__file__).resolve().parent
RUNTIME = Path(os.environ.get("FEDSEG_RUNTIME") or ROOT / ".runtime").resolve()
NEEDED_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)
EXTRAS = {"run": (), "test": ("test", "slicer")}
# What these need on the disk beside what the plan says, in megabytes (measured, with their wheels).
EXTRAS_MB = {"run": 0, "test": 1700}
NETWORK_REMEDY = (
    "Behind a proxy, set HTTPS_PROXY; behind a TLS-inspecting firewall, set PIP_CERT to your organisation's CA file."
)
# What slicer-core's pictures and off-screen Qt need on Linux, by Debian/Ubuntu package.
LINUX_LIBRARIES = {
    "GL": "libgl1", "EGL": "libegl1", "Xrender": "libxrender1", "xkbcommon": "libxkbcommon0", "dbus-1": "libdbus-1-3",
    "fontconfig": "libfontconfig1", "glib-2.0": "libglib2.0-0",
}  # fmt: skip


class BootstrapError(Exception):
    """Something a person has to put right; the message says what."""


def say(text: str) -> None:
    """Tell the user, on standard error."""
    print(text, file=sys.stderr, flush=True)


def suitable_python() -> str:
    """Return a Python between the oldest and newest supported one: this one, or another on PATH."""
    if NEEDED_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return sys.executable
    for minor in range(NEWEST_PYTHON[1], NEEDED_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    raise BootstrapError(
        f"FedSegSlicer needs Python 3.{NEEDED_PYTHON[1]} to 3.{NEWEST_PYTHON[1]}; this is "
        f"{sys.version.split()[0]}. Install one (python.org, or your system's packages) and start again with it."
    )


def runtime_python() -> Path:
    """Return the path of the runtime's interpreter (which need not exist yet)."""
    return RUNTIME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def child_environment() -> dict[str, str]:
    """Return the environment for children: the runtime's scripts first, no foreign Python settings."""
    environment = without_foreign(os.environ)
    environment["PATH"] = os.pathsep.join([str(runtime_python().parent), environment.get("PATH", "")])
    return environment


def installing_environment() -> dict[str, str]:
    """Return the environment for what installs: the CA file that pip was told of counts whatever else names one."""
    environment = pip_environment(child_environment())
    if environment.get("PIP_CERT"):
        environment.update(dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), environment["PIP_CERT"]))
    return environment


def run_with_ticker(step: str, command: list[str], log: Path) -> int:
    """Run ``command`` with its output in ``log``, showing that it is alive; return its exit status."""
    done = threading.Event()
    started = time.monotonic()

    def tick() -> None:
        while not done.wait(0.5 if sys.stderr.isatty() else 15.0):
            text = f"  {step} … {time.monotonic() - started:.0f} s"
            print(f"\r{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        with log.open("ab") as file:
            environment = installing_environment()
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
    finally:
        done.set()
        ticker.join()
    say(f"{chr(13) if sys.stderr.isatty() else ''}  {step}: {'done' if not status.returncode else 'failed'} "
        f"after {time.monotonic() - started:.0f} s")  # fmt: skip
    return status.returncode


def must_run(step: str, command: list[str], log: Path) -> None:
    """Run a step that the rest depends on; raise BootstrapError with the end of the log if it fails."""
    if run_with_ticker(step, command, log):
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        raise BootstrapError(f"{step} failed:\n\n{tail}\n\nThe whole log is {log}. {NETWORK_REMEDY} Then start again.")


def torch_is_small(pip: list[str]) -> bool:
    """Return whether pip would take a CPU build of torch by itself (a local wheel, or a platform without CUDA)."""
    query = [
        *pip,
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--quiet",
        "--report",
        "-",
        pinned(ROOT, "torch"),
    ]
    answer = subprocess.run(query, capture_output=True, text=True, env=installing_environment())
    if answer.returncode:
        return False
    chosen = json.loads(answer.stdout)["install"][0]["metadata"]["version"]
    return chosen.endswith("+cpu")


def install_torch(plan: Plan, pip: list[str], log: Path) -> None:
    """Install PyTorch in the build that ``plan`` names, which is that of the Slicer module's installer."""
    standard = [*pip, "install", "-c", "constraints.txt", "torch"]
    if not plan.variants or (plan.build == "cpu" and torch_is_small(pip)):
        must_run("Installing PyTorch", standard, log)
        return
    must_run("Installing uv", [*pip, "install", "-c", "constraints.txt", "uv"], log)
    for variant in plan.variants:
        index = index_of(runtime_python().with_name("uv.exe" if os.name == "nt" else "uv"), variant)
        # Only torch comes from there: with two indexes, either could offer a package of any name.
        there = ["--no-deps", "--retries", "1", "--index-url", str(index), f"{pinned(ROOT, 'torch')}+{variant}"]
        if index and not run_with_ticker(f"Installing PyTorch ({variant})", [*pip, "install", *there], log):
            return
    if plan.build == "cpu":
        raise BootstrapError(
            "PyTorch's build for the processor cannot be had from PyTorch's own package server; the one that others "
            f"offer is several times as large, with CUDA, and was not taken. {log} says why. {NETWORK_REMEDY} Or set "
            f"PIP_FIND_LINKS to a folder that has the wheel of {pinned(ROOT, 'torch')}+cpu. Then start again."
        )
    say("  PyTorch's own package server cannot be used from here; taking the standard build.")
    must_run("Installing PyTorch", standard, log)


def wanted_state(kind: str) -> str:
    """Return a fingerprint of what the runtime must contain for ``kind``."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*parts, str(ROOT).encode(), ",".join(EXTRAS[kind]).encode()])).hexdigest()


def refuse_foreign_folder() -> None:
    """Refuse a folder that holds something else, since making the environment may delete what is there."""
    if (RUNTIME / "current.json").exists():
        raise BootstrapError(
            f"{RUNTIME} holds a runtime that 3D Slicer's module installed, which is not changed from here. "
            "Set FEDSEG_RUNTIME to another folder, or not at all."
        )
    is_ours = (RUNTIME / "pyvenv.cfg").is_file()
    if RUNTIME.exists() and not is_ours and not (RUNTIME.is_dir() and not any(RUNTIME.iterdir())):
        raise BootstrapError(
            f"{RUNTIME} is there already and is no Python environment; nothing was changed. "
            "Set FEDSEG_RUNTIME to a new or empty folder (a new one inside it, for example), or not at all."
        )


def runs(*arguments: str) -> bool:
    """Return whether the runtime's Python is there and does this without an error."""
    command = [str(runtime_python()), *arguments]
    if not runtime_python().exists():
        return False
    return subprocess.run(command, capture_output=True, env=child_environment()).returncode == 0


def make_environment(log: Path) -> None:
    """Make the virtual environment, or give one that has no pip its pip."""
    if runs("-m", "pip", "--version"):
        return
    if runs("-c", ""):
        command = [str(runtime_python()), "-m", "ensurepip"]
    else:  # only an environment whose Python is gone is made anew
        command = [suitable_python(), "-m", "venv", "--clear", str(RUNTIME)]
    if run_with_ticker("Making the environment", command, log):
        raise BootstrapError(
            "Python could not make a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv"
        )


def checked_plan(kind: str) -> Plan:
    """Return which build of PyTorch this computer gets and what all takes, if there is room for it."""
    try:
        plan = make_plan(RUNTIME, "auto", None)
    except FileNotFoundError as error:
        raise BootstrapError(f"{RUNTIME.anchor} is not there. Set FEDSEG_RUNTIME to another folder.") from error
    plan = replace(plan, disk_mb=plan.disk_mb + EXTRAS_MB[kind])
    if not plan.fits:
        raise BootstrapError(
            f"{plan.disk_mb / 1000:.1f} GB of disk space are needed for {RUNTIME}; {plan.free_mb / 1000:.1f} are free."
        )
    return plan


def make_runtime(kind: str) -> None:
    """Make or complete the runtime; quick when it is already as wanted."""
    refuse_foreign_folder()
    state = RUNTIME / f"installed-{kind}"
    if state.is_file() and state.read_text() == wanted_state(kind) and runtime_python().exists():
        return
    plan = checked_plan(kind)
    say(f"Making FedSegSlicer's runtime in {RUNTIME} (once, a few minutes; takes up to {plan.disk_mb / 1000:.1f} GB)")
    RUNTIME.mkdir(parents=True, exist_ok=True)
    log = RUNTIME.with_name(f"{RUNTIME.name}-install.log")
    make_environment(log)
    pip = [str(runtime_python()), "-m", "pip"]
    must_run("Updating pip", [*pip, "install", "-c", "constraints.txt", "pip"], log)
    install_torch(plan, pip, log)
    target = f"{ROOT}[{','.join(EXTRAS[kind])}]" if EXTRAS[kind] else str(ROOT)
    must_run("Installing FedSegSlicer", [*pip, "install", "-c", "constraints.txt", "--editable", target], log)
    must_run("Checking", [str(runtime_python()), "-c", "import torch, monai, flwr, SimpleITK, FedSegCore"], log)
    if plan.build == "cuda" and not runs("-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"):
        say("PyTorch cannot use the NVIDIA graphics card and computes on the processor. Update the card's driver (CUDA "
            f"12 or later); to install anew, delete {RUNTIME} and start again.")  # fmt: skip
    state.write_text(wanted_state(kind))


def warn_of_missing_libraries() -> None:
    """On Linux, name the system packages whose absence makes the tests of pictures skip."""
    if sys.platform != "linux":
        return
    missing = [package for name, package in LINUX_LIBRARIES.items() if ctypes.util.find_library(name) is None]
    if missing:
        say(f"Tests that render pictures will skip; for them: sudo apt-get install {' '.join(missing)}")


def run_command(arguments: list[str]) -> int:
    """Run the runtime's Python with ``arguments`` in the caller's folder; return its exit status.

    Where the system can, this process becomes that one, so that signals reach it and no second process is left.
    """
    command = [str(runtime_python()), *arguments]
    if os.name == "posix":
        os.execve(command[0], command, child_environment())
    process = subprocess.Popen(command, env=child_environment())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child got the same Ctrl+C and tidies up; wait for it


def test_arguments(options: list[str]) -> list[str]:
    """Return the arguments that run the test suite; ``options`` replace the default choice of parallel workers."""
    parallel = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile", "--no-loadscope-reorder"]
    pytest = ["-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(ROOT / "Testing")]
    return [*pytest, *(options or parallel)]


def fedseg_arguments(options: list[str], *, demo: bool) -> list[str]:
    """Return the arguments that run a fedseg command; the demo goes to ``fedseg-demo`` unless told where."""
    command = ["-m", "FedSegCore.cli.main", *(["demo"] if demo else []), *options]
    if demo and not any(option.split("=")[0] == "--out" for option in options):
        command += ["--out", "fedseg-demo"]
    return command


def main() -> int:
    """Parse the command line, make the runtime, run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("demo", "test", "fedseg", "install"))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="passed on")
    given = parser.parse_args()
    try:
        make_runtime("test" if given.command == "test" else "run")
    except BootstrapError as error:
        say(f"\n{error}")
        return 4
    except KeyboardInterrupt:
        say("\nCancelled; start again to go on.")
        return 130
    if given.command == "install":
        return 0
    if given.command == "test":
        warn_of_missing_libraries()
        return run_command(test_arguments(given.options))
    return run_command(fedseg_arguments(given.options, demo=given.command == "demo"))


if __name__ == "__main__":
    sys.exit(main())
