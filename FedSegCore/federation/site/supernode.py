"""Entry of the SuperNode process: dials out to the coordinator, and serves tasks on loopback to our executor only."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.bounded_pull import SLACK_BYTES, Pull, PulledTooMuchError, bounded_pull
from FedSegCore.federation.bundle import bundle_digest
from FedSegCore.federation.client_app import SITE_KEY
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.heartbeats import keep_heart_beating
from FedSegCore.federation.process_group import end_with, follow_parent
from FedSegCore.federation.site.budget import has_room
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Refused
from FedSegCore.federation.site.policy import TrainingLimits
from FedSegCore.federation.site.strict_http import use_strict_client

_NEEDED = {
    "flwr.supernode.cli.flower_supernode": ("flower_supernode",),
    "flwr.supernode.start_client_internal": (
        "time",
        "start_client_internal",
        "_pull_and_store_message",
        "_push_messages",
        "get_fused_config_from_fab",
        "pull_objects",
    ),
    "flwr.supercore.protobuf.client": ("httpx",),
    "flwr.supernode.fleet_http_client": ("FleetHttpClient",),
}
_FLOWERS_POLL_S = 3


class _Clock:
    """Stands for the module ``time`` in Flower's loop, whose pause between two looks is a constant."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s

    def sleep(self, seconds: float) -> None:
        time.sleep(self._poll_s if seconds == _FLOWERS_POLL_S else seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def bounded(folder: SiteFolder, pull_objects: Pull) -> Pull:
    """Return Flower's ``pull_objects`` for messages the site's policy can allow; larger ones are dropped half-way.

    A message within twice the policy's size is let through, so that the server is told why it is refused.
    """
    within = bounded_pull(pull_objects, lambda: 2 * _message_bytes(folder) + SLACK_BYTES)

    def pull(*wanted: Any, **options: Any) -> dict[str, bytes]:
        try:
            return within(*wanted, **options)
        except PulledTooMuchError as error:
            if has_room(folder):
                measured, allowed = float(error.pulled), float(error.allowed)
                folder.journal.append(Refused(code="policy.message-size", measured=measured, allowed=allowed))
            raise

    return pull


class AnswerInHand:
    """Lets Flower's loop send the answer to the message in hand before it asks for the next one.

    Flower sends the answers that are there, waiting for one at least, once for every message. One too many, such as
    that to a message whose run ended while it was being received, would make each later answer wait for the next
    message: too late for its round, and so on until the SuperNode is started anew.

    Args:
        pull: Flower's ``_pull_and_store_message``.
        push: Flower's ``_push_messages``.
    """

    def __init__(self, pull: Callable[..., Any], push: Callable[..., None]) -> None:
        self._pull, self._push = pull, push
        self._in_hand = ""

    def pull(self, *, receive: Callable[[], Any], **given: Any) -> Any:
        """Pull a message and remember it."""

        def remembered() -> Any:
            received = receive()
            if received is not None:
                self._in_hand = received[0].metadata.message_id
            return received

        return self._pull(receive=remembered, **given)

    def push(self, *, send: Callable[..., Any], **given: Any) -> None:
        """Push all answers that are there, until that to the message in hand was among them."""
        sent = set()

        def noted(message: Any, *rest: Any) -> Any:
            sent.add(message.metadata.reply_to_message_id)
            return send(message, *rest)

        while self._in_hand not in sent:
            self._push(send=noted, **given)


def _message_bytes(folder: SiteFolder) -> int:
    try:
        return folder.policy().limits.message_bytes
    except FedSegError:
        return TrainingLimits().message_bytes


def _config_of_approved(folder: SiteFolder, read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def config(content: bytes, run: Any) -> Any:
        # not even the settings of a bundle that is refused later are parsed in this process
        return read(content, run) if folder.approves(bundle_digest(content)) else {}

    return config


def _run() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    folder = SiteFolder.open(arguments.folder)
    cli, loop, _, fleet = require_flower(_NEEDED)
    follow_parent(arguments.parent_pid)
    settings = folder.settings()
    loop.time = _Clock(settings.poll_s)
    loop.get_fused_config_from_fab = _config_of_approved(folder, loop.get_fused_config_from_fab)
    use_strict_client()
    keep_heart_beating(fleet.FleetHttpClient)
    loop.pull_objects = bounded(folder, loop.pull_objects)
    answers = AnswerInHand(loop._pull_and_store_message, loop._push_messages)
    loop._pull_and_store_message, loop._push_messages = answers.pull, answers.push
    sys.argv = [
        "flower-supernode",
        *("--superlink", settings.coordinator),
        *("--root-certificates", str(folder.authority_certificate)),
        *("--auth-supernode-private-key", str(folder.private_key)),
        *("--host", "127.0.0.1", "--port", str(arguments.port)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.superexec_secret)),
        *("--node-config", f"{SITE_KEY}={json.dumps(settings.name)}"),
    ]
    cli.flower_supernode()


def main() -> None:
    """Run SuperNode for a site's folder until it is told to stop, is expelled, or its parent ends."""
    end_with(_run)
