"""A new server certificate, before the old one expires or for more host names, without enrolling any site again."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.addresses import host_of
from FedSegCore.federation.coordinator.certificates import is_due, make_server_certificate
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings

RELOAD_S = 2.0
"""A running coordinator shows a renewed certificate within this time."""

_log = logging.getLogger(__name__)


def renew(folder: CoordinatorFolder, more_hosts: Sequence[str] = ()) -> CoordinatorSettings:
    """Make a new server key and certificate by the same authority, which is all that sites trust; return the settings.

    Args:
        folder: the coordinator; it may be running.
        more_hosts: names and addresses to add to those it has.

    Raises:
        UsageError: ``coordinator.host-name``.
        BadInputError: ``coordinator.authority``.
    """
    settings = folder.settings()
    known = {host_of(host) for host in settings.hosts}
    added = [host for host in dict.fromkeys(more_hosts) if _plain(host) not in known]
    hosts = (*settings.hosts, *added)
    make_server_certificate(folder.path / "ca", folder.path / "tls", hosts)
    renewed = settings.model_copy(update={"hosts": hosts})
    folder.keep_settings(renewed)
    return renewed


def _plain(host: str) -> str:
    with contextlib.suppress(ValueError):
        return host_of(host)
    return host  # refused where the certificate is made


def renew_in_time(folder: CoordinatorFolder) -> bool:
    """Renew a certificate in its last month, or after it; returns whether it was, logs why not where it cannot be."""
    try:
        if not is_due(folder.server_certificate, folder.authority_certificate):
            return False
        renew(folder)
    except (OSError, FedSegError):  # the authority may be locked away, the disk full
        _log.warning("the server certificate cannot be renewed", exc_info=True)
        return False
    _log.warning("the server certificate was renewed")
    return True


def mend(folder: CoordinatorFolder) -> None:
    """Make a new certificate where its key does not belong to it: a renewal was cut off between the two files.

    Raises:
        BadInputError: ``coordinator.authority``.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder.server_certificate, folder.server_key)
    except OSError as error:
        _log.warning("the server certificate cannot be used (%s); a new one is made", error)
        renew(folder)


async def show_renewed(certificate: Path, key: Path, contexts: Sequence[ssl.SSLContext]) -> None:
    """Let listeners show a certificate that was renewed; connections that are open keep what they have.

    Args:
        certificate: PEM file that is looked at every ``RELOAD_S``.
        key: its key.
        contexts: of the listeners. Runs until it is cancelled.
    """
    shown = _stamp(certificate)
    while True:
        await asyncio.sleep(RELOAD_S)
        now = _stamp(certificate)
        if now in (shown, None):
            continue
        try:
            # Tried apart first: a pair that does not fit would leave a listener without a certificate.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            for context in contexts:
                context.load_cert_chain(certificate, key)
        except OSError as error:
            _log.error("the renewed certificate cannot be used: %s", error)
        else:
            _log.warning("the renewed certificate is shown from now on")
        shown = now


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
