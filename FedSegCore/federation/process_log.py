"""What our own code says in a child process: to its log, beside Flower's lines and without their echo."""

import logging


def log_to_stderr() -> None:
    """Send our own messages, from INFO on, to standard error, which is the child's log file."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("FedSegCore")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
