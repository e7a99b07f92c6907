"""A coordinator that wants to run its own code at the sites: stock Flower, and a bundle that shadows FedSegCore."""

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

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
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())[:1]
    replies = grid.send_and_receive([Message(RecordDict(), n, "query") for n in nodes], timeout=25)
    told = ", ".join(f"node error {r.error.code}" if r.has_error() else "node answered" for r in replies)
    Path(os.environ["HOSTILE_REPORT"]).write_text(told)
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
        "pyproject.toml": pyproject.replace("FedSegCore.federation.server_app", "hostile_server"),
    }
    manifest = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},{len(text) * 8}" for name, text in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(manifest)}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def run_stock_server_app() -> None:
    """Run a server app as stock Flower does: unpack the bundle and run what is in it."""
    from flwr.superlink.cli import flwr_serverapp

    from FedSegCore.federation.superexec import task_arguments

    arguments = task_arguments()
    sys.argv = ["flwr-serverapp", "--runtime-api-address", arguments.runtime_api_address, "--token", arguments.token]
    sys.argv += ["--root-certificates", str(arguments.root_certificates)]
    flwr_serverapp()


if __name__ == "__main__":
    if "--token-file" in sys.argv:
        run_stock_server_app()
    else:
        from FedSegCore.federation.superexec import run

        assert Path(os.environ["HOSTILE_REPORT"]).parent.is_dir()
        run("SERVER_APP", "hostile_coordinator")
