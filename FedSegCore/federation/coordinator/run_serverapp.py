"""Entry of a server app's process: runs the installed server app, whatever the bundle of the run may say."""

import sys
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.heartbeats import keep_heart_beating
from FedSegCore.federation.process_group import follow_parent
from FedSegCore.federation.superexec import begin, task_arguments

_NEEDED = {
    "flwr.superlink.runtime.run_serverapp": ("install_from_fab",),
    "flwr.superlink.cli.flwr_serverapp": ("flwr_serverapp",),
    "flwr.supercore.runtime": ("RuntimeHttpClient",),
}


def main() -> None:
    """Run one server app; Flower's own code pulls the task and reports how it ended."""
    arguments = task_arguments()
    # Flower looks after its parent too, but only once everything is imported, and by asking politely
    follow_parent(arguments.parent_pid)
    runtime, cli, clients = require_flower(_NEEDED)
    keep_heart_beating(clients.RuntimeHttpClient, "SendTaskHeartbeat")
    install = runtime.install_from_fab

    def install_ours(content: bytes, *args: Any, **kwargs: Any) -> Path:
        if bundle_digest(content) != bundle_digest(thin_bundle()):
            raise BadInputError(
                "bundle.unknown", "The run's bundle is not this version's.", "Start runs with 'fedseg coordinator run'."
            )
        return Path(install(content, *args, **kwargs))

    runtime.install_from_fab = install_ours
    sys.argv = ["flwr-serverapp", "--runtime-api-address", arguments.runtime_api_address]
    sys.argv += ["--token", arguments.token, "--parent-pid", str(arguments.parent_pid)]
    sys.argv += ["--root-certificates", str(arguments.root_certificates)]
    begin(arguments)
    cli.flwr_serverapp()
