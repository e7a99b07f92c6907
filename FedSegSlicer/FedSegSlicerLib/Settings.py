"""What belongs to this computer and not to a scene: kept in Slicer's settings."""

from pathlib import Path

import qt

from .RuntimeLocator import usualInstallFolder

RELEASES_FOLDER = "FedSegSlicer/ReleasesFolder"
RUNTIME = "FedSegSlicer/Runtime"
RUNTIME_FOLDER = "FedSegSlicer/RuntimeFolder"
RUNTIME_BUILD = "FedSegSlicer/RuntimeBuild"
RUNTIME_WHEELS = "FedSegSlicer/RuntimeWheels"
RUNTIME_PROXY = "FedSegSlicer/RuntimeProxy"
RUNTIME_CA = "FedSegSlicer/RuntimeCertificates"
SITE_FOLDER = "FedSegSlicer/SiteFolder"
SEEN_RELEASES = "FedSegSlicer/SeenReleases"


def readSetting(key: str) -> str:
    """Return a setting, ``""`` where there is none."""
    value = qt.QSettings().value(key)
    return str(value) if value else ""


def writeSetting(key: str, value: str) -> None:
    """Keep a setting."""
    qt.QSettings().setValue(key, value)


def siteFolder() -> str:
    """Return the folder of this computer's site, ``""`` where the folder that is set (or being typed) holds none."""
    folder = readSetting(SITE_FOLDER)
    return folder if folder and (Path(folder) / "site.json").is_file() else ""


def runtimeFolder() -> Path:
    """Return the folder that the module installs its runtime into: the user's, or the usual one."""
    chosen = readSetting(RUNTIME_FOLDER)
    return Path(chosen) if chosen else usualInstallFolder()
