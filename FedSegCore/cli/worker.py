"""``fedseg worker``: serve one client over standard input and output."""


def worker() -> None:
    """Serve 3D Slicer: JSON-RPC 2.0, one message a line, on standard input and output.

    Not for people: the module FedSegSlicer starts and ends it. Log messages go to standard error.
    """
    from FedSegCore.worker.__main__ import run_worker

    run_worker()
