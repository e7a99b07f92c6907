"""Entry of the SuperNode process: dials out to the coordinator, and serves tasks on loopback to our executor only."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from FedSegCore.federation.client_app import SITE_KEY
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent
from FedSegCore.federation.site.folder import SiteFolder

_NEEDED = {
    "flwr.supernode.cli.flower_supernode": ("flower_supernode",),
    "flwr.supernode.start_client_internal": ("time", "start_client_internal"),
}
_FLOWERS_POLL_S = 3


class _Clock:
    """Stands for the module ``time`` in Flower's loop, whose pause between two looks is a constant."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s

    def sleep(self, seconds: float) -> None:
        time.sleep(self._poll_s if seconds == _FLOWERS_POLL_S else seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def main() -> None:
    """Run SuperNode for a site's folder until it is told to stop, is expelled, or its parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    folder = SiteFolder.open(arguments.folder)
    cli, loop = require_flower(_NEEDED)
    follow_parent(arguments.parent_pid)
    settings = folder.settings()
    loop.time = _Clock(settings.poll_s)
    sys.argv = [
        "flower-supernode",
        *("--superlink", settings.coordinator),
        *("--root-certificates", str(folder.authority_certificate)),
        *("--auth-supernode-private-key", str(folder.private_key)),
        *("--host", "127.0.0.1", "--port", str(arguments.port)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.superexec_secret)),
        *("--node-config", f"{SITE_KEY}={json.dumps(settings.name)}"),
    ]
    cli.flower_supernode()


if __name__ == "__main__":
    main()
