"""Entry of a site's SuperExec process: it takes client apps and nothing else."""

from FedSegCore.federation.superexec import run


def main() -> None:
    """Run it; never returns normally."""
    run("CLIENT_APP", "FedSegCore.federation.site.run_clientapp")
