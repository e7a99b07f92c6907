"""The coordinator's calls on its SuperLink: runs and sites, over the Control API on loopback."""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from FedSegCore.common.errors import BadInputError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder
from FedSegCore.federation.coordinator.superlink import CONTROL_HEADER
from FedSegCore.federation.site.keys import public_key_fingerprint, read_public_key

NOT_RUNNING = "coordinator.not-running"
REFUSED = "coordinator.refused"

_POLL_S = 0.2


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        stage: ``"pending"``, ``"starting"``, ``"running"`` or ``"finished"``.
        outcome: ``"completed"``, ``"failed"`` or ``"stopped"`` once finished, else empty.
        details: what Flower says of it.
        run: name of the run's folder; empty for a delivery.
    """

    stage: str
    outcome: str
    details: str
    run: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.stage == "finished"


def _status(run: Any) -> RunStatus:
    config = user_config_from_proto(run.override_config)
    name = "" if config.get("deliver") else str(config.get("run", ""))
    return RunStatus(run.status.status, run.status.sub_status, run.status.details, name)


class _SecretHeader:
    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Any) -> Any:
        context.request.headers[CONTROL_HEADER] = self._secret
        return call_next(context)


class _DirectClient(ControlHttpClient):
    """Flower's client, which would obey the variables that name proxies even for loopback."""

    _client: httpx.Client

    def __init__(
        self, base_url: str, *, verify: ssl.SSLContext | bool | str = True, timeout: float = 30.0, **more: Any
    ) -> None:
        super().__init__(base_url, verify=verify, timeout=timeout, **more)
        self._client.close()
        self._client = httpx.Client(verify=verify, timeout=timeout, trust_env=False)


class ControlClient:
    """Starts, follows and stops runs, admits and removes sites.

    Args:
        folder: the coordinator whose SuperLink runs on this machine.

    Every method raises CannotDoHereError: ``NOT_RUNNING`` where SuperLink does not answer, ``REFUSED`` where it answers
    with an error (its database may be locked for a moment).
    """

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder = folder
        self._client = _DirectClient.from_server_address(
            server_address=f"127.0.0.1:{folder.settings().control_port}",
            insecure=False,
            root_certificates=folder.authority_certificate.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
                _SecretHeader(folder.control_secret.read_text(encoding="ascii")),
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def wait_until_up(self, progress: Progress, limit_s: float = 60.0) -> None:
        """Wait until SuperLink answers; raises CannotDoHereError after ``limit_s``."""
        deadline = time.monotonic() + limit_s
        while True:
            progress.check()
            try:
                self._call("ListNodes", ListNodesRequest())
            except CannotDoHereError as error:
                if error.code != NOT_RUNNING or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def admit(self, name: str, public_key: Path) -> AdmittedSite:
        """Let the site with this OpenSSH public key in, and write it down.

        Raises:
            BadInputError: the key is no P-384 OpenSSH key, or was used before (Flower takes a key once only).
        """
        return self.admit_key(name, read_public_key(public_key))

    def admit_key(self, name: str, key: ec.EllipticCurvePublicKey) -> AdmittedSite:
        """Let the owner of this key in, and write it down; raises BadInputError as ``admit``."""
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        try:
            reply = self._call("RegisterNode", RegisterNodeRequest(public_key=pem, name=name))
        except CannotDoHereError as error:
            if error.code != REFUSED:
                raise
            node_id = self._admitted_unwritten(pem)
            if node_id is None:
                raise BadInputError(
                    "coordinator.key-refused",
                    "This key was not admitted; a key can be admitted once only.",
                    "Let the site make a new key and send it.",
                ) from error
        else:
            node_id = reply.node_id
        site = AdmittedSite(name=name, node_id=node_id, fingerprint=public_key_fingerprint(key))
        with self._folder.changing_sites():
            # an entry of this key that is there already is of a database that was lost
            others = tuple(other for other in self._folder.sites() if other.fingerprint != site.fingerprint)
            self._folder.keep_sites((*others, site))
        return site

    def knows(self, site: AdmittedSite) -> bool:
        """Return whether SuperLink lets a site in that is on the list: without its database it knows none."""
        return site.node_id in self._registered()

    def _admitted_unwritten(self, pem: bytes) -> int | None:
        """Return the node that a command admitted with this key before it was killed, too early to write it down."""
        known = {site.node_id for site in self._folder.sites()}
        found = [node_id for node_id, key in self._registered().items() if key == pem and node_id not in known]
        return found[0] if found else None

    def _registered(self) -> dict[int, bytes]:
        """Return the nodes that are let in, with their public keys (PEM)."""
        nodes = self._call("ListNodes", ListNodesRequest()).nodes_info
        return {int(node.node_id): node.public_key for node in nodes if node.status != "unregistered"}

    def remove(self, site: AdmittedSite) -> None:
        """Shut a site out; its SuperNode ends by itself within seconds. One that is out already is struck off only."""
        try:
            self._call("UnregisterNode", UnregisterNodeRequest(node_id=site.node_id))
        except CannotDoHereError as error:
            if error.code != REFUSED or site.node_id in self._registered():
                raise
        with self._folder.changing_sites():
            self._folder.keep_sites(tuple(other for other in self._folder.sites() if other.node_id != site.node_id))

    def online(self) -> frozenset[int]:
        """Return the node ids that are connected."""
        nodes = self._call("ListNodes", ListNodesRequest()).nodes_info
        return frozenset(node.node_id for node in nodes if node.status == "online")

    def start(self, run: str, bundle: bytes | None = None, *, deliver: bool = False) -> int:
        """Start the run whose folder is ``runs/<run>`` and return Flower's run id.

        Args:
            run: plain name of the run's folder.
            deliver: do not train; carry out the plan of delivery in that folder.
            bundle: another bundle than this version's (tests).
        """
        content = thin_bundle() if bundle is None else bundle
        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle_digest(content), content, {})),
            override_config=user_config_to_proto({"run": run, "deliver": deliver}),
            federation="",
        )
        reply = self._call("StartRun", request)
        if not reply.HasField("run_id"):
            raise CannotDoHereError("coordinator.run-refused", "SuperLink did not start the run.", "Read its log.")
        return int(reply.run_id)

    def status(self, run_id: int) -> RunStatus:
        """Return how a run stands; raises BadInputError for a run SuperLink does not know."""
        return _status(self._call_about_run("ListRuns", ListRunsRequest(run_id=run_id)).run_dict[run_id])

    def runs(self) -> dict[int, RunStatus]:
        """Return the latest twenty runs that SuperLink remembers, by run id, the newest first."""
        found = self._call("ListRuns", ListRunsRequest()).run_dict
        newest_first = sorted(found.items(), key=lambda entry: str(entry[1].pending_at), reverse=True)
        return {int(run_id): _status(run) for run_id, run in newest_first}

    def stop(self, run_id: int) -> None:
        """Stop a run; sites that are training end their round in vain.

        Raises:
            BadInputError: SuperLink does not know the run.
            CannotDoHereError: it has ended already (``REFUSED``).
        """
        self._call_about_run("StopRun", StopRunRequest(run_id=run_id))

    def _call_about_run(self, method: str, request: Any) -> Any:
        try:
            return self._call(method, request)
        except CannotDoHereError as error:
            cause = error.__cause__
            if isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code == httpx.codes.NOT_FOUND:
                raise BadInputError(
                    "coordinator.run-unknown",
                    f"There is no run {request.run_id}.",
                    "See the runs with 'fedseg coordinator status'.",
                ) from error
            raise

    def _call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._client, method)(request)
        except httpx.HTTPStatusError as error:
            raise CannotDoHereError(
                REFUSED,
                f"SuperLink refused the call (HTTP {error.response.status_code}).",
                "Read logs/superlink.log in the coordinator's folder.",
            ) from error
        except httpx.TransportError as error:
            raise CannotDoHereError(
                NOT_RUNNING,
                "The coordinator's SuperLink does not answer on this machine.",
                "Start it with 'fedseg coordinator start', or read logs/superlink.log in its folder.",
            ) from error
