"""Entry of a site's SuperExec process: it takes client apps and nothing else."""

from FedSegCore.federation.superexec import run

if __name__ == "__main__":
    run("CLIENT_APP", "FedSegCore.federation.site.run_clientapp")
