"""How a ClientApp process and the site's trainer prove to each other that they know the key, within a bounded time.

The library's own handshake waits for ever: a client for a trainer that accepts nobody any more, and a trainer, deaf to
everybody else meanwhile, for a client that says nothing.
"""

import socket
import sys
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from typing import cast


def call(address: str, key: bytes, limit_s: float) -> Connection:
    """Return a connection to the trainer at ``address``, a Unix socket or a named pipe.

    Raises:
        OSError: nobody is there; TimeoutError (one of them): nobody answers within ``limit_s``.
        EOFError: the other side hung up.
        AuthenticationError: the other side does not know ``key``.
    """
    connection = _dial(address, limit_s)
    try:
        link = cast(Connection, _Bounded(connection, limit_s))
        _prove(link, key)
        deliver_challenge(link, key)
    except BaseException:
        connection.close()
        raise
    return connection


def welcome(connection: Connection, key: bytes, limit_s: float) -> None:
    """Let who has called prove that they know ``key``, and do so too; raises what ``call`` does."""
    link = cast(Connection, _Bounded(connection, limit_s))
    deliver_challenge(link, key)
    _prove(link, key)


class _Bounded:
    """The part of a connection that the handshake uses, whose messages are short enough to be there at once."""

    def __init__(self, connection: Connection, limit_s: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + limit_s

    def send_bytes(self, content: bytes) -> None:
        self._connection.send_bytes(content)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        if not self._connection.poll(max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError("the other side says nothing")
        return self._connection.recv_bytes(maxlength)


def _prove(link: Connection, key: bytes) -> None:
    try:
        answer_challenge(link, key)
    except AssertionError as error:
        # so Python 3.11 says that what came is no challenge
        raise AuthenticationError("no challenge") from error


def _dial(address: str, limit_s: float) -> Connection:
    if sys.platform == "win32":
        # waits 20 s at most
        return Client(address, "AF_PIPE")
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(limit_s)
        line.connect(address)
        line.setblocking(True)
        return Connection(line.detach())
