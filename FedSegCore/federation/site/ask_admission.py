"""Entry of a short process that asks the coordinator, in Flower's own words, whether it knows this site's key.

A process of its own: Flower's client obeys this environment, may end its process, and is not loaded by who only asks.
It prints one line of JSON. Of the calls a SuperNode makes it uses those that disturb nobody: with a node id known from
before a look at a run that cannot exist, else an activation that is taken back at once.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.site.admission import Admission, Answer, keep_node_id, known_node_id
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.keys import read_private_key
from FedSegCore.federation.site.strict_http import AnswerRefusedError, use_strict_client

_NEEDED = {
    "flwr.supernode.fleet_http_client": ("FleetHttpClient",),
    "flwr.supernode.node_auth_http_interceptor": ("NodeAuthHttpInterceptor",),
    "flwr.supercore.interceptors": ("RuntimeVersionHttpInterceptor",),
    "flwr.supercore.error": ("ApiErrorCode", "FlowerError"),
    "flwr.supercore.primitives.asymmetric": ("public_key_to_bytes",),
    "flwr.proto.fleet_pb2": ("ActivateNodeRequest", "DeactivateNodeRequest"),
    "flwr.proto.run_pb2": ("GetRunRequest",),
    "flwr.proto.node_pb2": ("Node",),
}
_NO_RUN = 0
_HEARTBEAT_S = 30.0


def ask(folder: SiteFolder) -> Answer:
    """Return what the coordinator says; the way to it was tried before.

    Raises:
        FedSegError: Flower is not the one that is needed, or the key cannot be read.
        OSError, ValueError: the certificate cannot be read, or the answer is none of Flower's.
        httpx.TransportError, AnswerRefusedError: the connection was lost, or the answer is not read.
    """
    client_module, auth, interceptors, error, keys, fleet, run, node = require_flower(_NEEDED)
    key = read_private_key(folder.private_key)
    codes = error.ApiErrorCode
    with client_module.FleetHttpClient.from_server_address(
        folder.settings().coordinator,
        False,
        folder.authority_certificate.read_bytes(),
        interceptors=[
            interceptors.RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            auth.NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    ) as client:
        known = known_node_id(folder)
        if known is not None:
            look = run.GetRunRequest(node=node.Node(node_id=known), run_id=_NO_RUN)
            if _call(error, client.GetRun, look).code == int(codes.FLEET_GET_RUN_FAILED):
                return Answer(Admission.ADMITTED)
        public = keys.public_key_to_bytes(key.public_key())
        request = fleet.ActivateNodeRequest(public_key=public, heartbeat_interval=_HEARTBEAT_S)
        activated = _call(error, client.ActivateNode, request)
        if activated.reply is not None:
            node_id = activated.reply.node_id
            _call(error, client.DeactivateNode, fleet.DeactivateNodeRequest(node_id=node_id))
            keep_node_id(folder, node_id)
            return Answer(Admission.ADMITTED)
    if activated.code == int(codes.FLEET_NODE_ACTIVATION_FAILED):
        return Answer(Admission.UNKNOWN if known is None else Admission.EXPELLED)
    refused = activated.status == httpx.codes.UNAUTHORIZED
    return Answer(Admission.SIGNATURE if refused else Admission.OTHER, activated.status)


@dataclass(frozen=True)
class _Reply:
    status: int
    code: int
    reply: Any


def _call(error: Any, work: Callable[[Any], Any], request: Any) -> _Reply:
    """Return what came: HTTP status, Flower's code (0 for none), and the reply (None where it was refused)."""
    try:
        return _Reply(200, 0, work(request))
    except httpx.HTTPStatusError as refused:
        told = error.FlowerError.from_json(refused.response.text)
        return _Reply(refused.response.status_code, 0 if told is None else int(told.code), None)


def main() -> None:
    """Print the coordinator's answer as one line of JSON; exit code 1 where there is none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = SiteFolder.open(parser.parse_args().folder)
    use_strict_client()
    logging.disable(logging.WARNING)
    try:
        answer = ask(folder)
    except FedSegError as error:
        sys.exit(str(error))
    except (OSError, ValueError, httpx.TransportError, AnswerRefusedError) as error:
        sys.exit(type(error).__name__)
    sys.stdout.write(json.dumps({"admission": answer.admission.value, "status": answer.status}) + "\n")
