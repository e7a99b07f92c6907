"""``python -m FedSegCore.worker``: what ``fedseg worker`` runs, without the other commands' imports."""

import logging
import os
import signal

from FedSegCore.worker.channel import LineChannel
from FedSegCore.worker.methods import Methods
from FedSegCore.worker.server import WorkerServer, watch_parent


def run_worker() -> None:
    """Serve the client on standard input and output until it goes; does not return."""
    # Ctrl+C in the client's terminal reaches its children too; the client decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    channel = LineChannel.over_standard_streams()
    watch_parent(lambda: os._exit(0))
    WorkerServer(channel, Methods()).serve()
    logging.shutdown()
    # Work that did not stop in time must not keep the process: nothing it holds is lost, files are written whole.
    os._exit(0)


if __name__ == "__main__":
    run_worker()
