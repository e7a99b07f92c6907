"""What this worker runs on, found out without importing torch (which takes seconds)."""

import shutil
import sys
from pathlib import Path

from FedSegCore.common.packages import installed_versions

PACKAGES = ("torch", "monai", "SimpleITK", "numpy")


def package_versions() -> dict[str, str | None]:
    """Return package → installed version, None where it is missing."""
    found = installed_versions(PACKAGES)
    return {name: found.get(name) for name in PACKAGES}


def available_devices() -> list[str]:
    """Return what ``--device`` can be here; ``"cuda"`` if torch is a GPU build and an NVIDIA driver is installed.

    It is a forecast: the device itself is tried when it is first used.
    """
    devices = ["auto", "cpu"]
    torch = package_versions()["torch"] or ""
    if torch and not torch.endswith("+cpu") and _has_nvidia_driver():
        devices.append("cuda")
    return devices


def _has_nvidia_driver() -> bool:
    if sys.platform == "darwin":
        return False
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
