"""Entry of the coordinator's SuperExec process: it takes server apps and nothing else."""

from FedSegCore.federation.superexec import run

if __name__ == "__main__":
    run("SERVER_APP", "FedSegCore.federation.coordinator.run_serverapp")
