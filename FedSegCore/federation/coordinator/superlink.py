"""Entry of the SuperLink process: Control and Runtime API on loopback, only the Fleet API towards the sites.

Flower serves all three APIs on one port and checks nobody's right to use Control. Here the inner listener (127.0.0.1)
asks for the coordinator's secret on Control calls, and the outer TLS listener passes ``/v1/fleet/`` and nothing else.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.renewal import mend, show_renewed
from FedSegCore.federation.coordinator.standstill import outlive_standstills
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent

CONTROL_HEADER = "x-fedseg-control"
"""HTTP header that carries the coordinator's secret on Control calls."""

MOST_BODY_BYTES = 64 * 1024**2
"""Largest request that is taken from sites; Flower cuts what is larger than 5 MB into several."""

_NEEDED = {
    "flwr.superlink.cli.flower_superlink": (
        "flower_superlink",
        "_run_superlink_http_api",
        "SuperLinkLifespan",
        "console_handler",
    ),
    "flwr.superlink.main": ("create_app",),
    "flwr.supercore.http_logging": ("get_uvicorn_log_config",),
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class FleetOnly:
    """Passes HTTP requests to the Fleet API; everything else gets 404 without reaching Flower.

    Flower reads a request into memory before it asks who sent it, so a body beyond ``MOST_BODY_BYTES`` gets 413.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/fleet/"):
            await _refuse(scope, send, 404)
        elif _told_length(scope) > MOST_BODY_BYTES:
            await _refuse(scope, send, 413)
        else:
            await self._app(scope, _bounded(receive), send)


def _told_length(scope: Scope) -> int:
    told = dict(scope["headers"]).get(b"content-length", b"0")
    return int(told) if told.isdigit() else 0


def _bounded(receive: Receive) -> Receive:
    """Return ``receive`` that takes the sender for gone once a body that told no length is too long."""
    got = 0

    async def bounded() -> Any:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return message if got <= MOST_BODY_BYTES else {"type": "http.disconnect"}

    return bounded


class ControlWithSecret:
    """Passes everything, but Control calls only with the coordinator's secret in ``CONTROL_HEADER``."""

    def __init__(self, app: App, secret: str) -> None:
        self._app = app
        self._secret = secret.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        open_path = scope["type"] == "lifespan" or scope["path"].startswith(("/v1/fleet/", "/v1/runtime/", "/health"))
        if open_path or (scope["type"] == "http" and self._knows(scope)):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, 401)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(CONTROL_HEADER.encode("ascii"), b"")
        return secrets.compare_digest(given, self._secret)


async def _refuse(scope: Scope, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


class _SecondServer(uvicorn.Server):
    """A server beside the first one, which alone listens to signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve_both(inner: uvicorn.Server, outer: uvicorn.Server, folder: CoordinatorFolder) -> None:
    first = asyncio.create_task(inner.serve())
    while not (inner.started or first.done()):
        await asyncio.sleep(0.02)
    with listening_on_all_versions(outer.config.host, outer.config.port) as sockets:
        second = asyncio.create_task(outer.serve(sockets))
        while not (outer.started or first.done() or second.done()):
            await asyncio.sleep(0.02)
        contexts = [server.config.ssl for server in (inner, outer) if server.started and server.config.ssl is not None]
        renewals = asyncio.create_task(show_renewed(folder.server_certificate, folder.server_key, contexts))
        await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
        renewals.cancel()
        inner.should_exit = outer.should_exit = True
        await asyncio.gather(first, second)


@contextlib.contextmanager
def listening_on_all_versions(host: str, port: int) -> Iterator[list[socket.socket] | None]:
    """Yield a socket that takes IPv6 and IPv4 where ``host`` is ``::``, which asyncio would take for IPv6 alone."""
    if host != "::" or not socket.has_dualstack_ipv6():
        yield None
        return
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        yield [both]


def main() -> None:
    """Run SuperLink for a coordinator's folder until it is told to stop or its parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    folder = CoordinatorFolder.open(arguments.folder)
    cli, app_module, logging_module = require_flower(_NEEDED)
    follow_parent(arguments.parent_pid)
    mend(folder)
    outlive_standstills()

    def serve(lifespan_config: Any) -> None:
        app = app_module.create_app(lifespan_config, cli.SuperLinkLifespan)
        settings = folder.settings()
        common: dict[str, Any] = {
            "workers": 1,
            "log_config": logging_module.get_uvicorn_log_config(cli.console_handler.level),
            "ssl_keyfile": lifespan_config.ssl_keyfile,
            "ssl_certfile": lifespan_config.ssl_certfile,
            "server_header": False,
            # A held-open connection (a log stream, a client of ours) must not hold up the end.
            "timeout_graceful_shutdown": 2,
        }
        guarded = ControlWithSecret(app, folder.control_secret.read_text(encoding="ascii"))
        inner = uvicorn.Config(guarded, host="127.0.0.1", port=settings.control_port, **common)
        outer = uvicorn.Config(
            FleetOnly(app), host=settings.fleet_host, port=settings.fleet_port, lifespan="off", **common
        )
        asyncio.run(_serve_both(uvicorn.Server(inner), _SecondServer(outer), folder))

    cli._run_superlink_http_api = serve
    sys.argv = ["flower-superlink", *_flags(folder)]
    cli.flower_superlink()


def _flags(folder: CoordinatorFolder) -> list[str]:
    return [
        *("--host", "127.0.0.1", "--port", str(folder.settings().control_port)),
        *("--ssl-ca-certfile", str(folder.authority_certificate)),
        *("--ssl-certfile", str(folder.server_certificate)),
        *("--ssl-keyfile", str(folder.server_key)),
        "--enable-supernode-auth",
        *("--database", str(folder.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.superexec_secret)),
        "--disable-runtime-dependency-installation",
    ]
