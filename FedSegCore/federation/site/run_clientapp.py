"""Entry of a client app's process: answers one message with the installed client app and no other code.

A stock runner unpacks the coordinator's bundle and puts it first on the import path. Here a bundle is only compared
with what the site approves; a refused one still gets an answer, since a SuperNode waits for ever for a missing one.
"""

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from FedSegCore.common.errors import CancelledError, FedSegError
from FedSegCore.federation.bundle import bundle_digest
from FedSegCore.federation.client_app import make_client_app
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent
from FedSegCore.federation.process_log import log_to_json, log_to_stderr
from FedSegCore.federation.site.approval import note_refused
from FedSegCore.federation.site.budget import has_room
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.journal_watch import JournalWatch
from FedSegCore.federation.site.release_intake import ReleaseIntake
from FedSegCore.federation.site.trainer_client import TrainerClient
from FedSegCore.federation.superexec import begin, task_arguments

_NEEDED = {
    "flwr.supernode.runtime.run_clientapp": (
        "run_clientapp",
        "install_from_fab",
        "get_load_client_app_fn",
        "register_signal_handlers",
    ),
    "flwr.clientapp.client_app": ("LoadClientAppError",),
}

_log = logging.getLogger(__name__)


def main() -> None:
    """Answer one message."""
    arguments = task_arguments()
    log_to_stderr()
    runtime, client_app = require_flower(_NEEDED)
    folder = SiteFolder.open(arguments.folder)
    log_to_json(folder.logs, "clientapp")
    follow_parent(arguments.parent_pid)

    def approve(content: bytes, *_: Any, **__: Any) -> Path:
        digest = bundle_digest(content)
        if not folder.approves(digest):
            _log.error("the bundle %s is not approved here; nothing of it was run", digest)
            _note(folder, digest, content)
            raise client_app.LoadClientAppError("bundle not approved")
        return folder.run

    runtime.install_from_fab = approve
    runtime.get_load_client_app_fn = lambda *_args, **_kwargs: lambda *_names: _installed_app(folder)
    register = runtime.register_signal_handlers

    def register_and_answer(*args: Any, **kwargs: Any) -> None:
        register(*args, **kwargs)
        # Flower's own handler ends the process without an answer, after which the SuperNode waits for ever.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _give_up)

    runtime.register_signal_handlers = register_and_answer
    begin(arguments)
    runtime.run_clientapp(
        runtime_api_address=arguments.runtime_api_address, token=arguments.token, insecure=True, parent_pid=None
    )


def _note(folder: SiteFolder, digest: str, content: bytes) -> None:
    try:
        if has_room(folder):
            folder.journal.append(Refused(code="site.bundle-refused", sha256=digest))
            note_refused(folder, content)
    except FedSegError:
        # the server must get its answer all the same, and the text of an exception would be sent to it
        _log.exception("the refusal could not be journalled")


def _installed_app(folder: SiteFolder) -> Any:
    watch = JournalWatch(folder.journal, lambda: has_room(folder), folder.notice)
    return make_client_app(TrainerClient(folder), watch, ReleaseIntake(folder))


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise CancelledError
