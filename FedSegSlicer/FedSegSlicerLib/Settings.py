"""What belongs to this computer and not to a scene: kept in Slicer's settings."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from .Errors import UserError
from .RuntimeLocator import usualInstallFolder

RELEASES_FOLDER = "FedSegSlicer/ReleasesFolder"
RUNTIME = "FedSegSlicer/Runtime"
RUNTIME_FOLDER = "FedSegSlicer/RuntimeFolder"
RUNTIME_BUILD = "FedSegSlicer/RuntimeBuild"
RUNTIME_WHEELS = "FedSegSlicer/RuntimeWheels"
RUNTIME_PROXY = "FedSegSlicer/RuntimeProxy"
RUNTIME_CA = "FedSegSlicer/RuntimeCertificates"
SITE_FOLDER = "FedSegSlicer/SiteFolder"
SITES_SEEN = "FedSegSlicer/SitesSeen"
"""Folders that held a site, one a line: where one does no more, it may only be out of reach."""
SEEN_RELEASES = "FedSegSlicer/SeenReleases"


def readSetting(key: str) -> str:
    """Return a setting, ``""`` where there is none."""
    value = qt.QSettings().value(key)
    return str(value) if value else ""


def writeSetting(key: str, value: str) -> None:
    """Keep a setting."""
    qt.QSettings().setValue(key, value)


def siteFolder() -> str:
    """Return the folder of this computer's site, ``""`` where the folder that is set (or being typed) holds none.

    Raises:
        UserError: ``site.unreachable``: a site was there before, so whose models are to be trusted is not known now.
    """
    folder, seen = readSetting(SITE_FOLDER), readSetting(SITES_SEEN).split("\n")
    if not folder:
        return ""
    try:
        isThere = (Path(folder) / "site.json").is_file()
    except OSError:
        raise unreachableSite() from None
    if isThere and folder not in seen:
        writeSetting(SITES_SEEN, "\n".join([*filter(None, seen), folder]))
    elif not isThere and folder in seen:
        raise unreachableSite()
    return folder if isThere else ""


def forgetSite(folder: str) -> None:
    """Take note that a site was deleted, and is not only out of reach."""
    writeSetting(SITES_SEEN, "\n".join(site for site in readSetting(SITES_SEEN).split("\n") if site != folder))


def unreachableSite() -> UserError:
    """Return the error of a site's folder that cannot be looked into."""
    return UserError(
        "site.unreachable",
        _("Your site's folder cannot be reached, so it is not known whose models can be trusted."),
        _("Connect its disk, or choose the folder again under See. Where the site was deleted, empty that field."),
    )


def runtimeFolder() -> Path:
    """Return the folder that the module installs its runtime into: the user's, or the usual one."""
    chosen = readSetting(RUNTIME_FOLDER)
    return Path(chosen) if chosen else usualInstallFolder()
