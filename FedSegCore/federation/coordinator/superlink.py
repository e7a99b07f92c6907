"""Entry of the SuperLink process: Control and Runtime API on loopback, only the Fleet API towards the sites.

Flower serves all three APIs on one port and checks nobody's right to use Control. Here the inner listener (127.0.0.1)
asks for the coordinator's secret on Control calls, and the outer TLS listener passes ``/v1/fleet/`` and nothing else.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.flower_version import require_flower
from FedSegCore.federation.process_group import follow_parent

CONTROL_HEADER = "x-fedseg-control"
"""HTTP header that carries the coordinator's secret on Control calls."""

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
    """Passes HTTP requests to the Fleet API; everything else gets 404 without reaching Flower."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/fleet/"):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, 404)


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


async def _serve_both(inner: uvicorn.Server, outer: uvicorn.Server) -> None:
    first = asyncio.create_task(inner.serve())
    while not (inner.started or first.done()):
        await asyncio.sleep(0.02)
    second = asyncio.create_task(outer.serve())
    await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    inner.should_exit = outer.should_exit = True
    await asyncio.gather(first, second)


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
        asyncio.run(_serve_both(uvicorn.Server(inner), _SecondServer(outer)))

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


if __name__ == "__main__":
    main()
