"""Entry of the coordinator's SuperExec process: it takes server apps and nothing else."""

from FedSegCore.federation.superexec import run


def main() -> None:
    """Run it; never returns normally."""
    run("SERVER_APP", "FedSegCore.federation.coordinator.run_serverapp")
