"""Entry of the site's trainer process: keeps torch, the device and the prepared cohort in memory between rounds.

It answers over a local socket (a named pipe on Windows) whose address and random key stand in a file of mode 0600.
"""

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from multiprocessing.connection import Listener
from pathlib import Path
from types import FrameType

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.files import is_disk_full
from FedSegCore.common.monai_import import import_monai
from FedSegCore.federation.private_files import write_private
from FedSegCore.federation.process_group import follow_parent
from FedSegCore.federation.process_log import log_to_json, log_to_stderr
from FedSegCore.federation.site.folder import SOCKET_PREFIX, SiteFolder
from FedSegCore.federation.site.trainer_keeper import NO_ROOM_EXIT, keep_trouble

_WAITING_CALLS = 16

_log = logging.getLogger(__name__)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Run the trainer of a site's folder until it is told to stop or its parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    log_to_stderr()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _terminate)
    follow_parent(arguments.parent_pid)
    folder = SiteFolder.open(arguments.folder)
    log_to_json(folder.logs, "trainer")
    code = 0
    try:
        _serve(folder)
    except SystemExit:
        _log.info("told to stop")
    except FedSegError as error:
        _log.error("the trainer cannot work: %s", error, extra={"code": error.code})
        _keep(folder, error)
        code = 1
    except OSError as error:
        if not is_disk_full(error):
            raise
        _log.error("the trainer finds no room on the disk")
        code = NO_ROOM_EXIT
    # Nothing is left to be written, and taking torch down in order takes seconds.
    os._exit(code)


def _keep(folder: SiteFolder, error: FedSegError) -> None:
    try:
        keep_trouble(folder, error)
    except OSError:
        _log.warning("the reason could not be written")


def _serve(folder: SiteFolder) -> None:
    import_monai()
    from FedSegCore.federation.site.cohort_trainer import CohortTrainer
    from FedSegCore.federation.site.trainer_server import TrainerServer

    trainer = CohortTrainer(folder)
    key = secrets.token_bytes(32)
    # A socket's path may have about 100 characters only, so it lies in a short private folder of its own.
    home = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX))
    pipe = rf"\\.\pipe\fedseg-{secrets.token_hex(16)}"
    address, family = (pipe, "AF_PIPE") if os.name == "nt" else (str(home / "trainer"), "AF_UNIX")
    try:
        with Listener(address, family, backlog=_WAITING_CALLS) as listener:
            told = {"address": address, "key": key.hex(), "pid": os.getpid()}
            write_private(folder.trainer_address, json.dumps(told).encode("ascii"))
            TrainerServer(folder, trainer).serve(listener, key)
    finally:
        shutil.rmtree(home, ignore_errors=True)
