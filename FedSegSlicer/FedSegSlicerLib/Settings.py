"""What belongs to this computer and not to a scene: kept in Slicer's settings."""

import qt

RELEASES_FOLDER = "FedSegSlicer/ReleasesFolder"
RUNTIME = "FedSegSlicer/Runtime"


def readSetting(key: str) -> str:
    """Return a setting, ``""`` where there is none."""
    value = qt.QSettings().value(key)
    return str(value) if value else ""


def writeSetting(key: str, value: str) -> None:
    """Keep a setting."""
    qt.QSettings().setValue(key, value)
