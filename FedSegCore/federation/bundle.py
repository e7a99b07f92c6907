"""The app bundle of a run: a name and two references, no code. Every site computes it alike and approves only that."""

import hashlib
import io
import zipfile

from FedSegCore import __version__

_PYPROJECT = """[project]
name = "fedsegslicer"
version = "{version}"
description = "Runs the FedSegSlicer apps that are installed at every site."
license = {{ text = "Apache-2.0" }}
dependencies = []

[tool.flwr.app]
publisher = "fedsegslicer"

[tool.flwr.app.components]
serverapp = "FedSegCore.federation.server_app:app"
clientapp = "FedSegCore.federation.client_app:app"

[tool.flwr.app.config]
run = ""
deliver = false
"""
_DATE = (2024, 10, 1, 0, 0, 0)
_MADE_ON_UNIX = 3


def thin_bundle() -> bytes:
    """Return this version's bundle: byte for byte the same on every machine, so that its hash can be approved.

    Flower's own builder writes the operating system and its zlib's output into the file; this one does neither.
    """
    pyproject = _PYPROJECT.format(version=__version__).encode("utf-8")
    manifest = f"pyproject.toml,{hashlib.sha256(pyproject).hexdigest()},{len(pyproject) * 8}".encode("ascii")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("pyproject.toml", pyproject), (".info/CONTENT", manifest)):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = _MADE_ON_UNIX
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def bundle_digest(content: bytes) -> str:
    """Return the hexadecimal SHA-256 that names a bundle."""
    return hashlib.sha256(content).hexdigest()
