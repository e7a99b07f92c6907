"""A coordinator that wants to run its own code at the sites: stock Flower, and a bundle that shadows FedSegCore."""

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

from FedSegCore import __version__
from FedSegCore.federation.bundle import thin_bundle

_SHADOW = """
from pathlib import Path
import os
for place in Path(os.environ.get("FLWR_HOME", ".")).parent.glob("run"):
    (place / "hostile-code-ran").touch()
from flwr.clientapp import ClientApp
app = ClientApp()
"""

_SERVER = """
import os
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

def asked(grid, content, timeout):
    nodes = sorted(grid.get_node_ids())[:1]
    replies = grid.send_and_receive([Message(content, n, "query") for n in nodes], timeout=timeout)
    return ", ".join(f"node error {r.error.code}" if r.has_error() else "node answered" for r in replies) or "nothing"

@app.main()
def main(grid, context):
    told = [asked(grid, RecordDict(), 25)]
    # random, so that its chunks are not told apart as one and the same
    giant = ArrayRecord({"tensors": Array(np.random.default_rng(1).random(3_000_000))})
    told += [asked(grid, RecordDict({"model": giant}), 8), asked(grid, RecordDict(), 25)]
    Path(os.environ["HOSTILE_REPORT"]).write_text("; ".join(told))
"""


def hostile_bundle() -> bytes:
    """Return this version's bundle with a package of the installed one's name and the attacker's content."""
    with zipfile.ZipFile(io.BytesIO(thin_bundle())) as archive:
        pyproject = archive.read("pyproject.toml").decode()
    files = {
        "FedSegCore/__init__.py": _SHADOW,
        "FedSegCore/federation/__init__.py": "",
        "FedSegCore/federation/client_app.py": _SHADOW,
        "hostile_server.py": _SERVER,
        "sitecustomize.py": _SHADOW,
        "usercustomize.py": _SHADOW,
        "hostile.pth": "import sitecustomize",
        "../../escaped.py": _SHADOW,
        "/../../../run/escaped.py": _SHADOW,
        "pyproject.toml": pyproject.replace("FedSegCore.federation.server_app", "hostile_server"),
    }
    manifest = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},{len(text) * 8}" for name, text in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(manifest)}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def run_stock_server_app() -> None:
    """Run the server app of the bundle, with stock Flower's code but for the checks that would stop an attacker."""
    import importlib

    from flwr.superlink.cli import flwr_serverapp

    from FedSegCore.federation.superexec import begin, task_arguments

    runtime = importlib.import_module("flwr.superlink.runtime.run_serverapp")
    runtime.install_from_fab = _unpack_server

    arguments = task_arguments()
    sys.argv = ["flwr-serverapp", "--runtime-api-address", arguments.runtime_api_address, "--token", arguments.token]
    sys.argv += ["--root-certificates", str(arguments.root_certificates)]
    begin(arguments)
    flwr_serverapp()


def _unpack_server(content: bytes, *_: object, **__: object) -> Path:
    # where Flower looks for it
    place = f"fedsegslicer.fedsegslicer.{__version__}.{hashlib.sha256(content).hexdigest()[:8]}"
    folder = Path(os.environ["FLWR_HOME"]) / "apps" / place
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in ("hostile_server.py", "pyproject.toml"):
            (folder / name).write_bytes(archive.read(name))
    return folder


def main() -> None:
    """Play SuperExec, or the server app that it starts."""
    if "--token-file" in sys.argv:
        run_stock_server_app()
    else:
        from FedSegCore.federation.superexec import run

        assert Path(os.environ["HOSTILE_REPORT"]).parent.is_dir()
        run("SERVER_APP", "hostile_coordinator")
