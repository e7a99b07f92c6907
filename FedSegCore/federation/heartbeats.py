"""Flower's heartbeats through a server's troubles."""

from typing import Any, Literal

import httpx


def keep_heart_beating(
    client: type[Any], method: Literal["SendNodeHeartbeat", "SendTaskHeartbeat"] = "SendNodeHeartbeat"
) -> None:
    """Let Flower's client try a heartbeat again that was answered by 5xx (a full disk, a locked database).

    Flower's heartbeat thread ends for good at such an answer: a site would go on asking for messages, and be taken for
    gone until its SuperNode is started anew; a server app would go on, and its run be taken for dead a minute later.

    Args:
        client: ``FleetHttpClient`` or ``RuntimeHttpClient``; its method is replaced.
        method: its name.
    """
    send = getattr(client, method)

    def steady(self: Any, request: Any) -> Any:
        try:
            return send(self, request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            # as if it could not be reached, which Flower tries again
            raise httpx.TransportError("the server is in trouble") from error

    setattr(client, method, steady)
