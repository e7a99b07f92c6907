"""What went wrong with pip, from what it said."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The first that is found counts. Texts are those of pip 22 to 26, urllib3 and Python.
_SIGNS = {
    "runtime.disk-full": ("No space left on device", r"\[Errno 28\]", r"\[WinError 112\]", "Disk quota exceeded"),
    "runtime.proxy": ("407 Proxy Authentication", "ProxyError", "Tunnel connection failed", "Cannot connect to proxy"),
    "runtime.tls": ("CERTIFICATE_VERIFY_FAILED", "SSLError", "SSLCertVerificationError", "TLS CA certificate bundle"),
    "runtime.permission": ("Permission denied", r"\[WinError 5\]", "Access is denied", "Read-only file system"),
    "runtime.no-pip": ("No module named pip",),
    "runtime.broken-package": ("BadZipFile", "is invalid", "HASHES", "Wheel .* is corrupt", "has an invalid wheel",
                               "UnsupportedWheel", "IncompleteRead", "Error -3 while decompress"),
    "runtime.network": ("NameResolutionError", "NewConnectionError", "getaddrinfo failed", "Name or service not known",
                        "Connection refused", "ConnectTimeout", "Network is unreachable", "Temporary failure in name",
                        "Read timed out", "ReadTimeoutError", "ConnectionResetError", "RemoteDisconnected",
                        "ProtocolError"),
    "runtime.no-wheel": ("No matching distribution", "Could not find a version", "not a supported wheel"),
    "runtime.conflict": ("ResolutionImpossible", "conflicting dependencies"),
}  # fmt: skip


def code_of(lines: Iterable[str]) -> str:
    """Return the stable code for what pip's last lines tell."""
    text = "\n".join(lines)
    return next((code for code, signs in _SIGNS.items() if re.search("|".join(signs), text)), "runtime.install-failed")
